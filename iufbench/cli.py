"""The command line. Heavy imports happen inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from iufbench import __version__
from iufbench.cli_bench import bench
from iufbench.cli_cache import cache
from iufbench.cli_download import download
from iufbench.cli_options import FILE, FOLDER, SEED, json_option, results_option
from iufbench.cli_results import compare, export, figures, report, tables
from iufbench.cli_sweep import sweep
from iufbench.cli_trust import conclude, rerun, verify
from iufbench.errors import InputError, RunError, one_line
from iufbench.files import json_text
from iufbench.stopping import terminated_as_interrupted


class Commands(click.Group):
    """Turns what can go wrong without a bug into one line and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):  # file names need not be text, and are shown all the same
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(context)
        except InputError as error:
            click.echo(f"error: {one_line(error)}", err=True)
            context.exit(2)
        except RunError as error:
            click.echo(f"error: {one_line(error)}", err=True)
            context.exit(1)
        except (KeyboardInterrupt, click.Abort):
            is_run = context.invoked_subcommand in ("run", "sweep")
            hint = ": the same command goes on from the last checkpoint" if is_run else ""
            click.echo(f"\ninterrupted{hint}", err=True)
            context.exit(130)
        except BrokenPipeError:
            # Whoever read our output (head, less) has left: not an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(0)
        except OSError as error:  # a full disk under redirected output, a folder that vanished
            place = f" ({error.filename})" if error.filename else ""
            click.echo(f"error: {error.strerror or error}{place}", err=True)
            context.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="iufbench")
def main() -> None:
    """Benchmark harness for incremental unified industrial anomaly detection.

    A run is one protocol x one strategy x one seed on one data set; it leaves one run directory. Tables
    and figures are made from run directories and published numbers.

    \b
    First steps, without any download:
      iufbench run --protocol visa_8_1x4 --strategy iuf --synthetic
      iufbench list strategies
      iufbench tables
    """


@main.command()
@click.option("--protocol", required=True, help="Id, alias, or <dataset>_<X>_<Y>[x<N>], such as visa_8_1x4.")
@click.option("--strategy", required=True, help="Name of a strategy, or a path to your own card.yaml.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of everything random.")
@click.option("--data-root", type=FOLDER, help="Folder of the data set [default: $IUFBENCH_DATA/<dataset>].")
@click.option(
    "--synthetic", is_flag=True, help="Use the made-up stand-in data set (results are labelled so)."
)
@click.option("--data-seed", type=SEED, default=0, show_default=True, help="Seed of --synthetic.")
@click.option("--train-list", type=FILE, help="IUF/UniAD JSON-lines list of training images.")
@click.option("--test-list", type=FILE, help="IUF/UniAD JSON-lines list of test images.")
@click.option(
    "--preset", help="paper (published schedule) or quick (minutes on a CPU; default on synthetic)."
)
@click.option("--backbone", help="Any timm model instead of the card's.")
@click.option("--weights", help="File with backbone weights, or package, pretrained, random.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--threads", type=click.IntRange(1), help="CPU threads [default: 1 with quick, else torch's choice]."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Of the learner's matrix products; bf16 changes scores and is a recipe of its own.",
)
@click.option("--compile", is_flag=True, help="Train with torch.compile: pays on a GPU, not on a CPU.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a card key; repeatable."
)
@click.option("--order", help="Objects in this order: a,b,c (as many as the protocol needs).")
@click.option("--order-seed", type=SEED, help="Objects in a reproducibly shuffled order.")
@click.option("--eval-unseen", is_flag=True, help="Also evaluate objects that are not yet learnt.")
@click.option(
    "--diagnose-selection",
    is_flag=True,
    help="Also tell what the best epoch on test images would have reported; changes no result.",
)
@click.option(
    "--diagnose-every",
    type=click.IntRange(1),
    help="With --diagnose-selection, look at every k-th epoch only [default: 1].",
)
@click.option(
    "--resume/--restart",
    default=True,
    help="Go on with an unfinished run (default), or replace what exists.",
)
@click.option(
    "--checkpoint-epochs",
    type=click.IntRange(1),
    metavar="N",
    help="Save inside an experience every N epochs [default: about once a minute].",
)
@click.option("--dry-run", is_flag=True, help="Print what would be run, and stop.")
@click.option(
    "--cache/--no-cache",
    default=True,
    show_default=True,
    help="Keep decoded images and backbone features on disk for the next run (same results either way).",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Do the first experience twice, compare every bit, and stop; writes nothing.",
)
@click.option("--init-from", type=FILE, help="Start from the weights of a public UniAD or IUF checkpoint.")
@results_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="A line per epoch.")
def run(
    quiet: bool,
    verbose: bool,
    resume: bool,
    checkpoint_epochs: int | None,
    dry_run: bool,
    verify: bool,
    **options: Any,
) -> None:
    """Train and evaluate one strategy on one protocol.

    \b
    iufbench run --protocol visa_8_1x4 --strategy iuf --synthetic
    iufbench run --protocol elpv_1_1 --strategy iuf
    iufbench run --protocol mvtec_10_1x5 --strategy finetune --data-root ~/mvtec --preset quick
    iufbench run --protocol visa_2_2x5 --strategy ./mine.yaml --synthetic --set base.epochs=10

    The same command again goes on with a run that was stopped, to the same numbers as if it had never been,
    and does nothing when the run is finished; --restart runs it anew. Ctrl-C and SIGTERM save first. Exit
    code 0 done, 2 wrong input, 1 failure (with --verify: a difference), 130 interrupted.
    """
    from iufbench.plan import Request, prepare, split_names

    if (options["train_list"] is None) != (options["test_list"] is None):
        raise InputError("--train-list and --test-list belong together")
    lists = (options.pop("train_list"), options.pop("test_list"))
    options["lists"] = None if lists[0] is None else lists
    options["order"] = split_names(options["order"])
    diagnose, every = options.pop("diagnose_selection"), options["diagnose_every"]
    if every is not None and not diagnose:
        raise InputError("--diagnose-every belongs to --diagnose-selection")
    options["diagnose_every"] = (every or 1) if diagnose else None
    verbosity = -1 if quiet else int(verbose)
    with terminated_as_interrupted():
        plan = prepare(Request(**options), progress=not quiet)
        if dry_run:
            from iufbench.describe import describe_plan

            click.echo(describe_plan(plan))
            return
        from iufbench.progress import Progress
        from iufbench.runner import execute, is_complete

        progress = Progress(verbosity)
        if verify:
            _do_twice(plan, progress)
            return
        if resume and is_complete(plan):
            progress.say(f"complete already: {plan.path} (--restart runs it anew)")
        else:
            progress.say(f"run {plan.id}")
            execute(plan, progress, not resume, checkpoint_epochs)
        _show_results(plan.path, progress)
        if diagnose:
            from iufbench.selection import describe_optimism

            click.echo(describe_optimism(plan.path), err=True)


def _do_twice(plan: Any, progress: Any) -> None:
    from iufbench.determinism import do_twice

    differences, compared = do_twice(plan, progress)
    for line in differences:
        click.echo(line)
    if differences:
        click.echo(f"{len(differences)} of {compared} values differ between two runs of the first experience")
        raise SystemExit(1)
    click.echo(f"the first experience twice: all {compared} tensors, metrics and scores are the same bits")


def _show_results(path: Path, progress: Any) -> None:
    from iufbench.describe import describe_results
    from iufbench.figures import write_run_figures
    from iufbench.store import load_run

    figures = write_run_figures(path)
    click.echo(describe_results(load_run(path)))
    progress.say(f"run directory: {path}")
    for figure in figures:
        if figure.suffix == ".png":
            progress.say(f"figure: {figure}")


@main.command()
@click.argument("path", metavar="RUN", type=FOLDER)
@click.option(
    "--save-maps", is_flag=True, help="Keep the anomaly maps (float16, 98 KiB an image) in RUN/maps."
)
@click.option("--objects", help="Only these: a,b,c.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def evaluate(path: Path, save_maps: bool, objects: str | None, device: str, quiet: bool) -> None:
    """Evaluate a run directory again from its checkpoints, to keep its anomaly maps.

    What comes out is compared with the stored metrics and scores: exit code 1 when a number differs. To
    check a run completely, use `iufbench verify`.
    """
    from iufbench.plan import split_names
    from iufbench.progress import Progress
    from iufbench.reevaluate import evaluate_run

    differences = evaluate_run(path, Progress(-1 if quiet else 0), save_maps, split_names(objects), device)
    conclude(list(map(str, differences)))


@main.command("list")
@click.argument(
    "what", type=click.Choice(["protocols", "strategies", "datasets", "runs"]), default="protocols"
)
@results_option
@json_option
def list_(what: str, results: Path, as_json: bool) -> None:
    """List protocols, strategies, data sets or finished runs."""
    from iufbench import describe

    rows = {
        "protocols": describe.protocol_rows,
        "strategies": describe.strategy_rows,
        "datasets": describe.dataset_rows,
        "runs": lambda: describe.run_rows(results),
    }[what]()
    click.echo(json_text(rows) if as_json else describe.columns(rows))


@main.command()
@click.argument("kind", type=click.Choice(["protocol", "strategy", "dataset", "run"]))
@click.argument("name")
@json_option
def show(kind: str, name: str, as_json: bool) -> None:
    """Show one card or one run directory.

    \b
    iufbench show strategy iuf
    iufbench show protocol "8-1 with 4 Steps"
    iufbench show run results/runs/visa-synthetic/visa_8_1x4/iuf/1a2b3c4d/seed0
    """
    from iufbench import describe

    content = describe.content_of(kind, name)
    click.echo(json_text(content) if as_json else describe.as_text(kind, name, content))


@main.command()
@click.argument("metric")
@click.argument("path", metavar="[RUN]", type=FOLDER, required=False)
def explain(metric: str, path: Path | None) -> None:
    """What a number means: definition, formula, who uses it, and its value on a run directory.

    \b
    iufbench explain fm
    iufbench explain fm_final results/runs/visa-synthetic/visa_8_1x4/iuf/1a2b3c4d/seed0
    """
    from iufbench.describe import explain_metric

    click.echo(explain_metric(metric, path))


@main.group()
def data() -> None:
    """Make, download, check and look at data sets."""


@data.command()
@click.argument("folder", type=FOLDER)
@click.option("--dataset", default="visa", show_default=True, help="visa or mvtec: names and layout.")
@click.option("--objects", help="Only these: a,b,c.")
@click.option("--train", "n_train", type=click.IntRange(1), default=40, show_default=True)
@click.option("--good", "n_good", type=click.IntRange(1), default=15, show_default=True)
@click.option("--defective", "n_defective", type=click.IntRange(1), default=24, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Processes [default: one per core].")
@click.option("-q", "--quiet", is_flag=True)
def make(folder: Path, dataset: str, objects: str | None, quiet: bool, **counts: Any) -> None:
    """Make a synthetic data set in FOLDER, which must not exist or be empty.

    \b
    iufbench data make /tmp/visa-synthetic --dataset visa
    iufbench run --protocol visa_8_1x4 --strategy iuf --data-root /tmp/visa-synthetic
    """
    from iufbench.data.synthetic import make as make_synthetic
    from iufbench.plan import split_names

    images = make_synthetic(
        folder, dataset=dataset, objects=split_names(objects), progress=not quiet, **counts
    )
    click.echo(f"{images} synthetic images in {folder}")


@data.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--dataset", required=True, help="Which data set this should be (visa, mvtec, or a name of yours)."
)
@click.option("--workers", type=click.IntRange(1), help="Processes [default: one per core].")
@json_option
def check(folder: Path, dataset: str, workers: int | None, as_json: bool) -> None:
    """Verify a folder: counts, every image and mask, duplicates. Exit code 1 when there are faults.

    \b
    iufbench data check ~/data/visa --dataset visa
    """
    from iufbench.data.check import check_folder

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name the data set's root")
    report = check_folder(folder, dataset, workers, progress=not as_json)
    click.echo(json_text(report.as_dict()) if as_json else report.as_text())
    if report.errors:
        raise SystemExit(1)


@data.command()
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dataset", default="visa", show_default=True, help="visa or mvtec.")
@click.option("--objects", help="Only these: a,b,c.")
@click.option("--seed", type=SEED, default=0, show_default=True)
def preview(picture: Path, dataset: str, objects: str | None, seed: int) -> None:
    """Draw a contact sheet of the synthetic objects and their defects into PICTURE (a .png file)."""
    from iufbench.data.synthetic import preview as draw
    from iufbench.plan import split_names

    if picture.suffix.lower() != ".png":
        raise InputError(f"{picture}: the contact sheet is a PNG picture; give a name that ends in .png")
    draw(picture, dataset=dataset, objects=split_names(objects), seed=seed)
    click.echo(str(picture))


data.add_command(download)
data.add_command(cache)
for command in (sweep, tables, figures, report, compare, export, verify, rerun, bench):
    main.add_command(command)


if __name__ == "__main__":
    main()
