"""``iufbench verify`` and ``iufbench rerun``: can the numbers be trusted?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from iufbench.cli.echo import echo
from iufbench.cli.options import FOLDER, data_root_option, trust_option

SHOWN = 20


@click.command()
@click.argument("path", metavar="RUN", type=FOLDER)
@click.option(
    "--scores-only", is_flag=True, help="Only image metrics from scores.csv.gz: takes seconds, needs no data."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@data_root_option
@trust_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def verify(
    path: Path, scores_only: bool, device: str, data_root: Path | None, trust_code: bool, quiet: bool
) -> None:
    """Recompute every number of a run directory from its own files, and report differences.

    Summaries from metrics.csv, image metrics from scores.csv.gz, and all metrics and scores from the
    checkpoints (which needs the data). Compared bit by bit: another device or number of threads can
    change the last digits. Exit code 1 if a number differs.

    \b
    iufbench verify results/runs/visa-synthetic/visa_8_1x4/iuf/1a2b3c4d/seed0
    iufbench verify results/runs/visa-synthetic/visa_8_1x4/iuf/1a2b3c4d/seed0 --scores-only
    """
    from iufbench.support.progress import Progress
    from iufbench.trust.verify import verify_run

    verdict = verify_run(path, Progress(-1 if quiet else 0), scores_only, device, data_root, trust_code)
    for line in verdict.checked:
        echo(line)
    conclude(verdict.differences)


@click.command()
@click.argument("path", metavar="RUN", type=FOLDER)
@click.option("--results", type=FOLDER, help="Where to repeat it [default: <results>/reruns].")
@click.option("--device", help="auto, cpu, cuda or cuda:N [default: the run's own].")
@data_root_option
@trust_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def rerun(
    path: Path,
    results: Path | None,
    device: str | None,
    data_root: Path | None,
    trust_code: bool,
    quiet: bool,
) -> None:
    """Repeat a run from its run.json, in a separate folder, and compare the numbers bit by bit.

    Reports which versions, sources and hardware differed. If interrupted, the same command resumes.
    Exit code 1 if a number differs.

    \b
    iufbench rerun results/runs/visa-synthetic/visa_8_1x4/iuf/1a2b3c4d/seed0
    """
    from iufbench.support.progress import Progress
    from iufbench.trust.rerun import rerun as do_again

    repetition = do_again(path, Progress(-1 if quiet else 0), results, device, data_root, trust_code)
    echo(f"repeated in {repetition.path}")
    for line in repetition.surroundings:
        echo(f"different surroundings: {line}")
    conclude(repetition.differences)


def conclude(differences: Sequence[str]) -> None:
    """Print the differences, the first ones in full, and exit with 1 if there are any."""
    for line in differences[:SHOWN]:
        echo(line)
    if len(differences) > SHOWN:
        echo(f"... and {len(differences) - SHOWN} more")
    echo(f"{len(differences) or 'no'} difference{'s' if len(differences) > 1 else ''}")
    if differences:
        raise SystemExit(1)
