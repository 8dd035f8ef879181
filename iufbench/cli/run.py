"""``iufbench run`` and ``evaluate``: one run, and its anomaly maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from iufbench.cards.request import MAX_THREADS
from iufbench.cli.echo import echo, say_code
from iufbench.cli.options import (
    FILE,
    FOLDER,
    SEED,
    data_root_option,
    list_options,
    reading_options,
    results_option,
    trust_option,
)
from iufbench.cli.trust import conclude
from iufbench.support.errors import InputError


@click.command()
@click.option("--protocol", required=True, help="Id, alias, or <dataset>_<X>_<Y>[x<N>], such as visa_8_1x4.")
@click.option("--strategy", required=True, help="Name of a strategy, or a path to your own card.yaml.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--data-root", type=FOLDER, help="Folder of the data set [default: $IUFBENCH_DATA/<dataset>].")
@click.option(
    "--synthetic", is_flag=True, help="Use the synthetic stand-in data set (results are labelled as such)."
)
@click.option("--data-seed", type=SEED, default=0, show_default=True, help="Seed of --synthetic.")
@reading_options
@list_options
@click.option(
    "--preset", help="paper (published schedule) or quick (minutes on a CPU; default on synthetic)."
)
@click.option("--backbone", help="Any timm model instead of the card's.")
@click.option("--weights", help="File with backbone weights, or package, pretrained, random.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="CPU threads [default: 1 with quick, else torch's choice].",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "tf32", "bf16"]),
    default="auto",
    show_default=True,
    help="Precision of the learner's matrix products; auto: bf16 on CUDA cards that support it, else fp32. "
    "Anything but fp32 is a separate recipe.",
)
@click.option(
    "--step",
    type=click.Choice(["auto", "eager", "graph"]),
    default="auto",
    show_default=True,
    help="How an iteration is executed; auto: as a CUDA graph on a GPU if the strategy allows it.",
)
@click.option("--compile", is_flag=True, help="Train with torch.compile: pays off on a GPU, not on a CPU.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a card key; repeatable."
)
@click.option(
    "--order",
    help="Objects in this order: a,b,c (as many as the protocol needs), or a published order's name.",
)
@click.option("--order-seed", type=SEED, help="Objects in a reproducibly shuffled order.")
@click.option("--eval-unseen", is_flag=True, help="Also evaluate objects that are not yet learnt.")
@click.option(
    "--threshold",
    metavar="RULE",
    help="Calibrate decision thresholds on normal images kept out of training: 'quantile 0.95', 0.975, "
    "mean+3sd. A separate recipe.",
)
@click.option(
    "--calibration",
    type=float,
    metavar="SHARE",
    help="With --threshold, the share of an object's training images to calibrate on, at least 5 images "
    "[default: 0.1; the validation images instead where the data set has them].",
)
@click.option(
    "--diagnose-selection",
    is_flag=True,
    help="Also report what selecting the best epoch on test images would have given; changes no result.",
)
@click.option(
    "--diagnose-every",
    type=click.IntRange(1),
    help="With --diagnose-selection, evaluate every k-th epoch only [default: 1].",
)
@click.option(
    "--resume/--restart",
    default=True,
    help="Resume an unfinished run (default), or replace what exists.",
)
@click.option(
    "--checkpoint-epochs",
    type=click.IntRange(1),
    metavar="N",
    help="Save after every N epochs of an experience [default: about once a minute].",
)
@click.option("--dry-run", is_flag=True, help="Print what would be run, and stop.")
@click.option(
    "--probe",
    is_flag=True,
    help="With --dry-run, time a few iterations on this machine and estimate the hours.",
)
@click.option(
    "--cache/--no-cache",
    default=True,
    show_default=True,
    help="Keep decoded images and backbone features on disk for the next run (same results either way).",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Run the first experience twice, compare every bit, and stop; writes nothing.",
)
@click.option("--init-from", type=FILE, help="Start from the weights of a public UniAD or IUF checkpoint.")
@click.option(
    "--logger",
    "loggers",
    multiple=True,
    type=click.Choice(["text", "tensorboard", "wandb"]),
    help="Also log to stderr, RUN/tensorboard or Weights & Biases; repeatable.",
)
@results_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="A line per epoch.")
def run(
    quiet: bool,
    verbose: bool,
    resume: bool,
    checkpoint_epochs: int | None,
    dry_run: bool,
    probe: bool,
    verify: bool,
    loggers: tuple[str, ...],
    **options: Any,
) -> None:
    """Train and evaluate one strategy on one protocol.

    \b
    iufbench run --protocol visa_8_1x4 --strategy iuf --synthetic
    iufbench run --protocol elpv_1_1 --strategy iuf
    iufbench run --protocol mvtec_10_1x5 --strategy finetune --data-root ~/mvtec --preset quick
    iufbench run --protocol visa_2_2x5 --strategy ./mine.yaml --synthetic --set base.epochs=10

    Repeating the command resumes an interrupted run, with the same numbers as an uninterrupted one, and does
    nothing if the run is finished; --restart starts from scratch. Ctrl-C and SIGTERM end a run at once: the
    current epoch is lost, or about a minute if epochs are shorter (docs/determinism.md). Exit code 0 done,
    2 invalid input, 1 failure (with --verify: a difference), 130 interrupted.
    """
    from iufbench.engine import api
    from iufbench.engine.plan import prepare

    if probe and not dry_run:
        raise InputError("--probe belongs to --dry-run")
    if dry_run:
        from iufbench.engine.describe import describe_plan

        plan = prepare(api.request_of(**options), progress=not quiet, before_code=say_code)
        echo(describe_plan(plan))
        if probe:
            from iufbench.bench import probe as probing

            echo("\n" + probing.describe(plan, probing.probe(plan)))
        return
    from iufbench.support.progress import Progress

    progress = Progress(-1 if quiet else int(verbose))
    if verify:
        plan = prepare(api.request_of(**options), progress=not quiet, before_code=say_code)
        _do_twice(plan, progress)
        return
    done = api.run(
        **options,
        resume=resume,
        checkpoint_epochs=checkpoint_epochs,
        loggers=loggers,
        quiet=quiet,
        verbose=verbose,
    )
    _show_results(done, progress)
    if options["diagnose_selection"]:
        from iufbench.engine.selection import describe_optimism

        echo(describe_optimism(done.path), err=True)


def _do_twice(plan: Any, progress: Any) -> None:
    from iufbench.trust.repeat import do_twice

    differences, compared = do_twice(plan, progress)
    for line in differences:
        echo(line)
    if differences:
        echo(f"{len(differences)} of {compared} values differ between two runs of the first experience")
        raise SystemExit(1)
    echo(f"ran the first experience twice: all {compared} tensors, metrics and scores have the same bits")


def _show_results(run: Any, progress: Any) -> None:
    from iufbench.engine.describe import describe_results

    echo(describe_results(run))
    costs = run.record.costs
    if costs.train_images_per_s is not None:
        share = costs.kernel_share
        kernels = "" if share is None else f"; kernels ran {share:.0%} of the time"
        progress.say(f"training: {costs.train_images_per_s:.0f} images/s{kernels}")
    progress.say(f"run directory: {run.path}")
    for figure in run.figures:
        progress.say(f"figure: {figure}")


@click.command()
@click.argument("path", metavar="RUN", type=FOLDER)
@click.option(
    "--save-maps", is_flag=True, help="Save the anomaly maps (float16, 98 KiB per image) in RUN/maps."
)
@click.option("--objects", help="Only these: a,b,c.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@data_root_option
@trust_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def evaluate(
    path: Path,
    save_maps: bool,
    objects: str | None,
    device: str,
    data_root: Path | None,
    trust_code: bool,
    quiet: bool,
) -> None:
    """Evaluate a run directory again from its checkpoints, to save its anomaly maps.

    The results are compared with the stored metrics and scores: exit code 1 if a number differs. To check
    a run completely, use `iufbench verify`.
    """
    from iufbench.engine.plan import split_names
    from iufbench.support.progress import Progress
    from iufbench.trust.reevaluate import evaluate_run

    progress, names = Progress(-1 if quiet else 0), split_names(objects)
    differences = evaluate_run(path, progress, save_maps, names, device, data_root, trust_code)
    conclude(list(map(str, differences)))
