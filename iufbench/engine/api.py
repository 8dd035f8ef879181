"""The Python API for runs and lists, also used by ``iufbench run``, ``list`` and ``explain``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from iufbench.cards.request import Request, lists_of
from iufbench.engine import describe
from iufbench.engine.plan import prepare, split_names
from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import InputError
from iufbench.support.fields import LARGEST, convert
from iufbench.support.files import PathOrText
from iufbench.support.progress import Progress

PRECISIONS = ("auto", "fp32", "tf32", "bf16")
LOGGERS = ("text", "tensorboard", "wandb")


def run(
    protocol: str,
    strategy: PathOrText,
    *,
    seed: int = 0,
    data_root: PathOrText | None = None,
    synthetic: bool = False,
    data_seed: int = 0,
    train_list: PathOrText | None = None,
    test_list: PathOrText | None = None,
    manifest: PathOrText | None = None,
    card: PathOrText | None = None,
    good_names: Sequence[str] = (),
    max_pixels: int | None = None,
    accept_masks: bool = False,
    preset: str | None = None,
    backbone: str | None = None,
    weights: PathOrText | None = None,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    step: str = "auto",
    compile: bool = False,
    settings: Mapping[str, Any] | Sequence[str] = (),
    order: str | Sequence[str] | None = None,
    order_seed: int | None = None,
    eval_unseen: bool = False,
    threshold: str | float | None = None,
    calibration: float | None = None,
    diagnose_selection: bool = False,
    diagnose_every: int | None = None,
    resume: bool = True,
    checkpoint_epochs: int | None = None,
    cache: bool = True,
    init_from: PathOrText | None = None,
    loggers: Sequence[str] = (),
    results: PathOrText = "results",
    quiet: bool = False,
    verbose: bool = False,
) -> Run:
    """Train and evaluate one strategy on one protocol: ``iufbench run`` with the same options.

    Repeating the call resumes an interrupted run and returns a finished one immediately.

    Args:
        protocol: Id, alias, or ``<dataset>_<X>_<Y>[x<N>]``, such as ``visa_8_1x4``.
        strategy: Name of a strategy, or the path of your own ``card.yaml``.
        seed: Seed of all random numbers, from 0.
        data_root: Folder of the data set; None: ``$IUFBENCH_DATA/<dataset>``.
        synthetic: Use the synthetic stand-in data set; results are labelled as such.
        data_seed: Seed of the synthetic images.
        train_list: IUF/UniAD JSON-lines list of training images, with ``test_list``.
        test_list: IUF/UniAD JSON-lines list of test images, with ``train_list``.
        manifest: List of all images: ``meta.json`` (ADer) or CSV (InCLAD).
        card: Your own data set card.
        good_names: Folders with these names hold normal images, like ``good`` and ``ok``.
        max_pixels: Largest number of pixels of an image; None: 100,000,000.
        accept_masks: Accept the masks as correct: no warnings about them.
        preset: ``paper`` (published schedule) or ``quick``; None: the data set's own.
        backbone: Any timm model instead of the card's.
        weights: File with backbone weights, or ``package``, ``pretrained``, ``random``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads; None: 1 with ``quick``, else torch's choice.
        precision: ``auto``, ``fp32``, ``tf32`` or ``bf16``, of the learner's matrix products; auto is bf16 on
            CUDA cards that support it, else fp32. Anything but fp32 is a separate recipe.
        step: ``auto``, ``eager`` or ``graph``: how an iteration is executed.
        compile: Train with ``torch.compile``.
        settings: Card keys to override: ``{"base.epochs": 10}`` or ``["base.epochs=10"]``.
        order: Objects in this order, or the name of a published order.
        order_seed: Objects in a reproducibly shuffled order.
        eval_unseen: Also evaluate objects that are not yet learnt.
        threshold: Calibrate decision thresholds on normal images that are kept out of training:
            ``quantile 0.95`` (or 0.95), ``mean+3sd``. A separate recipe.
        calibration: With ``threshold``, the share of an object's training images to calibrate on, at least 5;
            None: 0.1. Where the data set has validation images, those are used instead.
        diagnose_selection: Also record what the best epoch on test images would have reported.
        diagnose_every: With ``diagnose_selection``, evaluate every k-th epoch only.
        resume: False replaces what exists.
        checkpoint_epochs: Save after every so many epochs of an experience; None: about once a minute.
        cache: Keep decoded images and features on disk for the next run (same results either way).
        init_from: Start from the weights of a public UniAD or IUF checkpoint.
        loggers: Also log to ``text`` (stderr), ``tensorboard`` or ``wandb``.
        results: Results folder.
        quiet: No progress.
        verbose: A line per epoch.

    Returns:
        The run, loaded from its directory.

    Raises:
        InputError: The request is invalid; nothing was written.
        RunError: The run failed; ``run.json`` of its directory says why.
    """
    options = dict(locals())
    resume, quiet, verbose = (bool(options.pop(name)) for name in ("resume", "quiet", "verbose"))
    _whole("checkpoint_epochs", options.pop("checkpoint_epochs"), 1)
    loggers = tuple(options.pop("loggers"))
    unknown = [name for name in loggers if name not in LOGGERS]
    if unknown:
        raise InputError(f"loggers: unknown {unknown[0]!r} (known: {', '.join(LOGGERS)})")
    progress = Progress(-1 if quiet else int(verbose))
    plan = prepare(
        request_of(**options), progress=not quiet, before_code=lambda text: progress.say(f"note: {text}")
    )
    from iufbench.engine.runner import execute, is_complete
    from iufbench.reporting.figures.build import write_run_figures

    if resume and is_complete(plan):
        progress.say(f"already complete: {plan.path} (restart: --restart, in Python resume=False)")
    else:
        progress.say(f"run {plan.id}")
        execute(plan, progress, not resume, checkpoint_epochs, loggers)
    write_run_figures(plan.path)
    return load_run(plan.path)


def request_of(**options: Any) -> Request:
    """Convert options of :func:`run` to a request. Raises InputError if they are invalid."""
    lists = ("train_list", "test_list", "manifest")
    options["lists"] = lists_of(*(options.pop(name, None) for name in lists))
    diagnose, every = options.pop("diagnose_selection", False), options.get("diagnose_every")
    if every is not None and not diagnose:
        raise InputError("--diagnose-every belongs to --diagnose-selection")
    options["diagnose_every"] = (every or 1) if diagnose else None
    order, settings = options.get("order"), options.get("settings", ())
    named = order is None or isinstance(order, str)
    options["order"] = split_names(order) if named else _texts("order", order) or split_names("")
    if isinstance(settings, Mapping):
        settings = [f"{k}={v if isinstance(v, str) else _json(k, v)}" for k, v in settings.items()]
    options["settings"] = _texts("settings", settings)
    options["good_names"] = _texts("good_names", options.get("good_names"))
    for name in ("data_root", "card", "init_from", "results"):
        options[name] = None if options.get(name) is None else _path(name, options[name])
    for name in ("protocol", "strategy"):
        options[name] = str(options[name])
    for name in ("weights", "threshold"):
        options[name] = None if options.get(name) is None else str(options[name])
    for name in ("synthetic", "compile", "eval_unseen", "cache", "accept_masks"):
        convert(bool, options.get(name, False), "run", name, {})
    for name in ("seed", "data_seed", "order_seed"):
        _whole(name, options.get(name), 0)
    for name in ("threads", "max_pixels", "diagnose_every"):
        _whole(name, options.get(name), 1)
    if options.get("calibration") is not None:
        options["calibration"] = convert(float, options["calibration"], "run", "calibration", {})
    if options.get("precision", "auto") not in PRECISIONS:
        raise InputError(f"precision must be {', '.join(PRECISIONS)}, not {options['precision']!r}")
    return Request(**options)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """Texts in their order: one alone, or a list or tuple; none for None."""
    texts = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name} must be text or a list of texts, not {value!r}")
    return tuple(texts)


def _json(key: str, value: Any) -> str:
    """A setting as JSON; numbers of numpy are plain ones."""
    try:
        return json.dumps(value, default=lambda number: number.item())
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"settings: {key} must be a plain value, not {value!r}") from error


def _path(name: str, value: Any) -> Path:
    try:
        return Path(os.path.expanduser(value))  # unlike Path.expanduser, an unknown user is no error
    except TypeError as error:
        raise InputError(f"{name} must be a path, not {value!r}") from error


def _whole(name: str, value: Any, least: int) -> None:
    if value is not None:
        convert(int, value, "run", name, {"at_least": least, "at_most": LARGEST})


def list_protocols() -> pd.DataFrame:
    """Protocols with a card: id, title, numbers of objects, aliases."""
    return pd.DataFrame(describe.protocol_rows())


def list_strategies() -> pd.DataFrame:
    """Registered strategies: name, title, description."""
    return pd.DataFrame(describe.strategy_rows())


def list_datasets() -> pd.DataFrame:
    """Data sets with a card: name, title, number of objects, layout, licence."""
    return pd.DataFrame(describe.dataset_rows())


def list_runs(results: PathOrText = "results") -> pd.DataFrame:
    """Every run directory below ``results``: id, status, image ACC and FM in [0, 1], path.

    Corrupted directories have the status ``corrupted``; the reasons go to stderr.
    """
    return pd.DataFrame(describe.run_rows(Path(results)))


def explain(metric: str, run: Run | PathOrText | None = None) -> str:
    """What a metric means: definition, formula, who uses it, and its value on a run.

    Args:
        metric: Name (``fm``) or printed title (``ACC-final``) of a metric or summary.
        run: A run, or the path of its directory.

    Raises:
        InputError: The name is unknown; the message has suggestions.
    """
    path = None if run is None else run.path if isinstance(run, Run) else Path(run)
    return describe.explain_metric(metric, path)
