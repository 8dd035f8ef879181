"""Converts image scores and anomaly maps of any method to a run directory of kind ``external``."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iufbench.cards.datasets import DataSetCard, dataset_card, own_card
from iufbench.cards.protocols import Protocol, find_protocol
from iufbench.cards.request import Request, arguments
from iufbench.data.datasets import default_root
from iufbench.data.listed import NOTE, listed
from iufbench.data.requested import requested_data, requested_protocol
from iufbench.data.samples import DataSet
from iufbench.data.survey import surveyed
from iufbench.engine.checks import check_data, check_results_folder
from iufbench.engine.plan import MAP_SIZE, counts_of
from iufbench.engine.recording import dataset_record, protocol_record
from iufbench.engine.submission import (
    Expected,
    Group,
    invalid_as_input,
    read_submission,
    write_template,
)
from iufbench.engine.submitted_maps import MapFolder, with_masks
from iufbench.evaluation.rows import MetricRow, ScoreRow
from iufbench.evaluation.truth import ObjectTest
from iufbench.evaluation.values import metric_rows, score_rows
from iufbench.reporting.maps import maps_path, write_maps
from iufbench.reporting.record import (
    COMPLETE,
    EXTERNAL,
    EXTERNAL_PREFIX,
    INFO,
    RunRecord,
    StrategyRecord,
    SubmissionRecord,
    run_id,
    run_path,
    write_record,
)
from iufbench.reporting.rundir import METRIC_COLUMNS, METRICS, SCORE_COLUMNS, SCORES, record_hashes
from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import file_sha256, work_folder, write_csv
from iufbench.support.names import is_link, problem_with_name
from iufbench.support.progress import Progress
from iufbench.support.provenance import environment, now
from iufbench.support.version import SCORES_VERSION, __version__

LONGEST_NAME = 80


@dataclass(frozen=True)
class Scoring:
    """The data of a submission. ``card`` is that of the data set, None for a custom one."""

    request: Request
    protocol: Protocol
    dataset: DataSet
    card: DataSetCard | None

    @property
    def expected(self) -> Expected:
        """The images to score, in the order in which ``ObjectTest`` has them."""
        tests = {name: self.dataset.select("test", (name,)) for name in self.protocol.objects}
        root = self.dataset.root
        return Expected(
            self.protocol.experiences,
            {name: [s.image.relative_to(root).as_posix() for s in tests[name]] for name in tests},
            {name: np.array([s.label for s in tests[name]], dtype=bool) for name in tests},
        )

    def truth(self, name: str, maps: bool, masks: Path | None) -> ObjectTest:
        """The ground truth of one object; with ``maps``, including the masks of the data set or of a folder.

        Raises InputError if a mask cannot be read or does not match its image.
        """
        samples, dataset = self.dataset.select("test", (name,)), self.dataset
        masked = maps and (masks is not None or dataset.is_masked(name))
        if masked and masks is not None:
            samples = with_masks(samples, dataset.root, masks)
        kinds, without = (self.card.kinds, self.card.without) if self.card else ({}, ())
        how = dataset.decoding if masked else None
        steps = self.protocol.experiences
        return ObjectTest.of(name, samples, dataset.root, MAP_SIZE, how, kinds, without, steps)


def prepare_scoring(request: Request, progress: bool = True, pixels: bool = False) -> Scoring:
    """Open the data set and resolve the protocol of a request; its other options are ignored.

    Where no folder of the data set is given, its official list of images does, unless ``pixels`` (masks) are
    needed. Raises InputError if the protocol is unknown, or the data are missing, invalid, or lack normal or
    defective test images.
    """
    if request.synthetic and request.data_root is not None:
        raise InputError("--synthetic and --data-root cannot be given together")
    name, _ = find_protocol(request.protocol)
    own = own_card(name, request.card)
    if own is not None:
        request = replace(request, card=own.absolute())
    protocol = requested_protocol(request)
    card = dataset_card(name, own)
    dataset = None if pixels or card is None else _listed(request, protocol, card)
    if dataset is None:
        dataset = requested_data(request, protocol, progress)
    check_data(dataset, protocol)
    return Scoring(request, protocol, dataset, card)


def _listed(request: Request, protocol: Protocol, card: DataSetCard) -> DataSet | None:
    """The official list, where there is one and the request says nothing about other data."""
    other = (
        request.synthetic,
        request.data_root,
        request.lists,
        request.card,
        default_root(protocol.dataset),
    )
    if any(value not in (None, False) for value in other) or protocol.stream is not None:
        return None
    return listed(protocol.dataset, card.objects)


def template(path: Path, request: Request, progress: bool = True) -> Path:
    """Write a CSV file with a row for every score that a protocol needs.

    Raises InputError if the file exists, and as ``prepare_scoring`` does.
    """
    return write_template(path, prepare_scoring(request, progress).expected)


def score_file(
    request: Request,
    scores: Path,
    maps: Path | None = None,
    masks: Path | None = None,
    link: str | None = None,
    save_maps: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Evaluate a submission like a strategy, and store it as an external run.

    Args:
        request: Protocol, data, seed and results folder; its ``strategy`` is the name of the method.
        scores: CSV file as ``read_submission`` reads it.
        maps: Folder of anomaly maps as ``MapFolder`` reads it; None: image metrics only.
        masks: Folder with masks, for a data set without masks.
        link: URL of a paper or of code, http or https.
        save_maps: Store the maps in the run directory (float16) for figures.
        progress: Called with messages.

    Returns:
        The complete run.

    Raises:
        InputError: The submission is invalid, or the results folder has other scores of this name and seed;
            nothing was written.
    """
    progress = progress or Progress(-1)
    _check_arguments(request.strategy, scores, maps, masks, link, save_maps)
    check_results_folder(request.results)
    scoring = prepare_scoring(request, progress.verbosity >= 0, maps is not None)
    if maps is not None:
        scoring = replace(scoring, dataset=surveyed(scoring.dataset))
    given = read_submission(scores, scoring.expected)
    folder = None if maps is None else MapFolder(maps, MAP_SIZE)
    record = _record(scoring, scores, maps, masks, link)
    path = run_path(
        request.results, record.dataset.name, record.protocol.id, record.strategy.name, record.recipe_hash,
        record.seed,
    )  # fmt: skip
    new = [parent for parent in path.parents if not parent.exists()]
    try:
        with work_folder(path) as made:
            record.warnings = _evaluate(scoring, given, folder, masks, made, save_maps, progress)
            record.started = record.finished = now()
            assert record.submission is not None
            record.submission.maps_sha256 = None if folder is None else folder.sha256
            record.records_sha256 = record_hashes(made)
            write_record(made, record)
            record.summary = load_run(made).summaries()
            write_record(made, record)
            _file(made, path)
    finally:
        for parent in new:  # those that were made for nothing
            with suppress(OSError):
                parent.rmdir()
    return load_run(path)


def _check_arguments(
    name: str, scores: Path, maps: Path | None, masks: Path | None, link: str | None, save_maps: bool
) -> None:
    rule = problem_with_name(name)
    if rule is None and len(name) > LONGEST_NAME:
        rule = f"at most {LONGEST_NAME} characters"
    if rule is not None:
        raise InputError(f"--name {name[:40]!r}: the rule for names is: {rule}")
    if not scores.is_file():
        raise InputError(f"{scores}: there is no such file; --template FILE writes one to fill in")
    if maps is None and (masks is not None or save_maps):
        raise InputError(f"{'--masks' if masks is not None else '--save-maps'} needs --maps")
    for option, folder in (("--maps", maps), ("--masks", masks)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{option} {folder}: there is no such folder")
    if link is not None and not is_link(link):
        raise InputError(f"--link {link[:60]!r}: give a URL that starts with https:// or http://")


def _evaluate(
    scoring: Scoring,
    given: Mapping[Group, np.ndarray],
    folder: MapFolder | None,
    masks: Path | None,
    made: Path,
    save_maps: bool,
    progress: Progress,
) -> list[str]:
    """Write ``metrics.csv`` and ``scores.csv.gz``; returns likely faults of the masks, a line each.

    The ground truth of one object is in memory at a time.
    """
    doubts: list[str] = []
    rows: dict[Group, tuple[list[MetricRow], list[ScoreRow]]] = {}
    introduced = scoring.expected.introduced
    with progress.bar("evaluating", sum(map(len, given.values()))) as bar:
        for name in introduced:
            truth = scoring.truth(name, folder is not None, masks)
            doubts += [f"masks of {name}: {doubt.message}" for doubt in truth.doubts]
            for step, values in ((t, v) for (t, obj), v in sorted(given.items()) if obj == name):
                found = None
                if folder is not None and truth.masks is not None:
                    found = folder.read(step, truth.names)
                    if save_maps:
                        write_maps(maps_path(made, step, name), found, truth.names)
                metrics = metric_rows(truth, values, found, introduced[name] <= step)
                rows[step, name] = metrics, score_rows(truth, values)
                bar.advance(len(values))
    order = [group for group in scoring.expected.possible if group in rows]
    score_table = ((t, *row[:-1]) for t, obj in order for row in rows[t, obj][1])  # without ``routed``
    metric_table = ((t, *row) for t, obj in order for row in rows[t, obj][0])
    write_csv(made / SCORES, SCORE_COLUMNS, score_table)
    write_csv(made / METRICS, METRIC_COLUMNS, metric_table)
    return [] if scoring.request.accept_masks else doubts


def _record(
    scoring: Scoring, scores: Path, maps: Path | None, masks: Path | None, link: str | None
) -> RunRecord:
    request, protocol, name = scoring.request, scoring.protocol, scoring.request.strategy
    recipe_hash = hashlib.sha256(f"{EXTERNAL}\0{name}".encode()).hexdigest()[:8]
    strategy, dataset = f"{EXTERNAL_PREFIX}{name}", scoring.dataset
    data = dataset_record(dataset, scoring.card, protocol, counts_of(dataset, protocol, request.seed))
    if NOTE in data.notes:
        data.root = None
    if masks is not None:
        data.notes.append(f"masks from {masks.absolute()}")
    words = arguments(request)
    place = words.index("--strategy")
    words[place] = "--name"
    extra = {"--maps": maps, "--masks": masks, "--link": link}
    more = [str(word) for pair in extra.items() if pair[1] is not None for word in pair]
    here = environment("cpu", 1)
    with invalid_as_input():
        digest = file_sha256(scores.resolve())
    return RunRecord(
        kind="external",
        submission=SubmissionRecord(digest, link=link),
        iufbench=__version__,
        scores_version=SCORES_VERSION,
        id=run_id(dataset.name, protocol.id, strategy, recipe_hash, request.seed),
        status=COMPLETE,
        dataset=data,
        protocol=protocol_record(protocol, protocol.experiences),
        strategy=StrategyRecord(name=strategy, title=name, family="other"),
        recipe_hash=recipe_hash,
        preset=EXTERNAL,
        seed=request.seed,
        seeds={"synthetic_data": request.data_seed if request.synthetic else None},
        map_size=None if maps is None else MAP_SIZE,
        environment=replace(here, device=None, processor=None, threads=None, cores=None),
        request=request.as_dict(),
        command=shlex.join(["iufbench", "score", str(scores), *words[1:], *more]),
    )


def _file(made: Path, path: Path) -> None:
    """Move a run directory to its final path atomically; an identical one is left unchanged.

    Raises InputError if a different submission has the path.
    """
    if not os.path.lexists(path):
        try:
            os.rename(made, path)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error
        return
    try:
        same = (path / INFO).is_file() and record_hashes(path) == record_hashes(made)
    except RunError:
        same = False
    if not same:
        raise InputError(
            f"{path} holds other scores of this name and seed: remove it, or give another --name or --seed"
        )
