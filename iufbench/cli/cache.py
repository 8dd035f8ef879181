"""``iufbench data cache``."""

from __future__ import annotations

import click

from iufbench.cli.echo import echo
from iufbench.cli.options import json_option
from iufbench.support.errors import InputError
from iufbench.support.files import json_text


@click.command()
@click.option("--info", "action", flag_value="info", help="What is cached, how large, and where (default).")
@click.option("--verify", "action", flag_value="verify", help="Read everything; exit code 1 if corrupted.")
@click.option("--clear", "action", flag_value="clear", help="Remove everything that is not being built.")
@json_option
def cache(action: str | None, as_json: bool) -> None:
    """Inspect, verify or clear the caches of decoded images, backbone features and drifting streams.

    They are stored in $IUFBENCH_CACHE [default: ~/.cache/iufbench], filled by `iufbench run`, and can be
    removed at any time: the next run rebuilds them and produces the same numbers. Synthetic data sets, which
    are stored in the same folder, are not touched.

    \b
    iufbench data cache --info --json
    iufbench data cache --clear
    """
    from iufbench.data.cache.contents import clear, entries, verify
    from iufbench.engine.describe import columns
    from iufbench.support.bytebar import readable
    from iufbench.support.folders import cache_folder

    folder, action = cache_folder(), action or "info"
    if as_json and action != "info":
        raise InputError(f"--json goes with --info, not with --{action}")
    if action == "info":
        found = entries(folder)
        total = sum(e["bytes"] for e in found)
        if as_json:
            echo(json_text({"folder": folder, "bytes": total, "entries": found}))
            return
        shown = [{**e, "bytes": readable(e["bytes"])} for e in found]
        if shown:
            echo(columns(shown))
        echo(f"{len(found)} entries, {readable(total)} in {folder}")
    elif action == "verify":
        problems = verify(folder)
        for place, problem in problems:
            echo(f"{place}: {problem}")
        echo(f"{len(problems) or 'no'} corrupted {'entry' if len(problems) == 1 else 'entries'}")
        if problems:
            echo("the next run rebuilds them; to remove all of them, use --clear", err=True)
            raise SystemExit(1)
    else:
        freed, kept = clear(folder)
        for place in kept:
            echo(f"kept {place}: a process is building it", err=True)
        echo(f"{readable(freed)} freed in {folder}")
