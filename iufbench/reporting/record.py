"""``run.json``: one typed description for all code that writes or reads it.

Fields added by later versions have defaults here, so older files remain readable; keys unknown to this
version are kept (top level) or ignored (below), so newer files of the same format are readable too.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from iufbench.metrics.thresholds import read_rule
from iufbench.support.errors import InputError, RunError, one_line
from iufbench.support.files import read_json, write_json
from iufbench.support.names import problem_with_name
from iufbench.support.provenance import Environment

FORMAT = 1
INFO = "run.json"
EXTERNAL = "external"
EXTERNAL_PREFIX = "external-"  # in strategy names, so that submitted scores are not mistaken for a strategy's
Status = Literal["complete", "running", "interrupted", "failed"]
COMPLETE: Status = "complete"
RUNNING: Status = "running"
INTERRUPTED: Status = "interrupted"
FAILED: Status = "failed"
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]  # of seconds, MiB, ...
Side = Annotated[int, msgspec.Meta(ge=1, le=2**16)]  # pixels
Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Name = Annotated[str, msgspec.Meta(max_length=200)]
LONGEST_LABEL = 100  # characters of a title that tables and figures show
MAX_BYTES, MAX_EXPERIENCES, MAX_OBJECTS = 2**21, 1000, 1000  # of a run
PER_EXPERIENCE = ("trained_images", "replayed_images", "bytes_kept", "train_seconds")  # lists in the costs


def run_id(dataset: str, protocol: str, strategy: str, recipe_hash: str, seed: int) -> str:
    """The identity of a run, which is also its path below ``<results>/runs``.

    Raises InputError if a name cannot be a folder name.
    """
    for what, name in (
        ("data set", dataset),
        ("protocol", protocol),
        ("strategy", strategy),
        ("recipe hash", recipe_hash),
    ):
        if not name or name.startswith(".") or any(c in "/\\\0" or ord(c) < 32 for c in name):
            raise InputError(
                f"{what} name {name!r} cannot be a folder name: "
                "use no '/', '\\', control characters or leading '.'"
            )
        if len(name.encode("utf-8", "surrogatepass")) > 200:
            raise InputError(
                f"{what} name {name[:40]!r}... is too long for a folder name (200 bytes at most)"
            )
    return f"{dataset}/{protocol}/{strategy}/{recipe_hash}/seed{seed}"


def run_path(
    results: Path | str, dataset: str, protocol: str, strategy: str, recipe_hash: str, seed: int
) -> Path:
    """The directory of a run; creates nothing."""
    return Path(results) / "runs" / run_id(dataset, protocol, strategy, recipe_hash, seed)


def _shown(title: str) -> str:
    return one_line(title)[:LONGEST_LABEL]


@dataclass
class DatasetRecord:
    """The data of a run. ``counts``: ``train`` and ``test`` images per object; ``fingerprint`` of the file
    list and sizes; ``root``: location of the data; ``notes``: remarks of the reader; ``decoding``: see
    ``data.decoding``; ``objects`` of the run and ``objects_known`` on the card.
    """

    name: str
    synthetic: bool
    fingerprint: Name
    title: str | None = None
    root: str | None = None
    has_masks: bool | None = None
    notes: list[str] = field(default_factory=list)
    decoding: dict[str, Any] = field(default_factory=dict)
    objects: Count | None = None
    objects_known: Count | None = None
    licence: str | None = None
    counts: dict[str, dict[str, Count]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return _shown(self.title or self.name)

    @property
    def coverage(self) -> str:
        """``"4 of 15 objects"`` for a run on a subset of the data set's objects; "" for all of them."""
        if self.objects_known is None or self.objects is None or self.objects >= self.objects_known:
            return ""
        return f"{self.objects} of {self.objects_known} objects"

    @property
    def orientation(self) -> str:
        """Whether EXIF orientations were ``applied`` or ``ignored``; "" if the record does not say."""
        upright = self.decoding.get("upright")
        return "" if upright is None else "applied" if upright else "ignored"


@dataclass
class ProtocolRecord:
    """``experiences``: the objects of each experience, in training order. ``stream``: settings of a stream
    that modifies the images; only with it an object can be in several experiences.
    """

    id: str
    experiences: list[list[str]]
    title: str | None = None
    order: str | None = None
    version: int | None = None
    stream: dict[str, Any] | None = None

    @property
    def label(self) -> str:
        return _shown(self.title or self.id)

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(name for experience in self.experiences for name in experience)


@dataclass
class StrategyRecord:
    """``uses``: what the learner relies on (``learning.context.Uses``); the hashes are SHA-256 of the card
    file and of the learner's source file."""

    name: str
    title: str | None = None
    family: Name | None = None
    version: int | None = None
    uses: dict[str, Any] = field(default_factory=dict)
    card_sha256: str | None = None
    learner_sha256: str | None = None

    @property
    def label(self) -> str:
        return _shown(self.title or self.name)


@dataclass
class BackboneRecord:
    """The frozen backbone; ``random``: without pretrained weights."""

    name: Name | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    random: bool | None = None


@dataclass
class Seconds:
    """Wall time of the parts of a run over all processes that did it; NaN where it was not recorded."""

    features: Amount = math.nan
    train: Amount = math.nan
    evaluate: Amount = math.nan
    total: Amount = math.nan


@dataclass
class Costs:
    """Resources that a run used; lists have one entry per trained experience, None: not recorded.

    ``bytes_kept``: carried into the next experience besides the deployed weights; ``replayed_images``: stored
    old training images; ``trained_images``: images shown, epochs counted; ``train_seconds``: wall time of
    training without reading images; memory in MiB; ``kernel_share``: of the time in which the GPU computed,
    in a short window of the first long experience.
    """

    parameters_total: Count | None = None
    parameters_trainable: Count | None = None
    trained_images: list[Count] = field(default_factory=list)
    replayed_images: list[Count] = field(default_factory=list)
    bytes_kept: list[Count] = field(default_factory=list)
    train_seconds: list[Amount] = field(default_factory=list)
    train_images_per_s: Amount | None = None
    kernel_share: Amount | None = None
    peak_memory_mb: Amount | None = None
    peak_device_memory_mb: Amount | None = None


@dataclass
class ObjectThresholds:
    """Thresholds of one object from its ``images`` calibration images: frozen right after it was learnt, and
    own, from the scores after the last experience. A score or pixel above a threshold is an alarm; None if
    undefined.
    """

    images: Count
    frozen_image: Finite | None = None
    frozen_pixel: Finite | None = None
    own_image: Finite | None = None
    own_pixel: Finite | None = None


@dataclass
class ThresholdRecord:
    """Decision thresholds of a finished run, from ``calibration.csv.gz``.

    ``rule`` and ``pixel_rule`` as typed (``metrics.thresholds.read_rule``); ``share`` of the training images
    that was set aside; ``objects``: by name; ``pooled_image`` and ``pooled_pixel``: one threshold for all
    objects, from the scores of all their calibration images after the last experience.
    """

    rule: str
    pixel_rule: str
    share: Amount
    objects: dict[str, ObjectThresholds] = field(default_factory=dict)
    pooled_image: Finite | None = None
    pooled_pixel: Finite | None = None


@dataclass
class SharedBase:
    """The run whose base experience was shared within a sweep, and where it was trained."""

    run: str
    environment: Environment


@dataclass
class Parent:
    """The run that this one extends: its first ``experiences`` are that run's. ``checkpoint_sha256``: of the
    state from which training continued; ``missing``: objects whose data were not available.
    """

    run: str
    experiences: Count
    checkpoint_sha256: str
    missing: list[str] = field(default_factory=list)


@dataclass
class SubmissionRecord:
    """The origin of the scores of an external run: hashes of what was submitted, and a link to its method.

    ``maps_sha256``: over the anomaly map files in the order in which they were read; None without.
    """

    scores_sha256: str
    maps_sha256: str | None = None
    link: str | None = None


Kind = Literal["trained", "external"]


@dataclass
class RunRecord:
    """The content of ``run.json``.

    ``kind``: ``trained`` by this harness, or ``external``: only scored by it, from a ``submission``.
    ``scores_version`` is ``support.version.SCORES_VERSION`` of the code (0: before it was recorded); ``id``
    is the path below ``<results>/runs``; ``status`` is running, interrupted, failed or complete;
    ``warnings``: likely problems of the data, a line each; ``request``: the options of ``iufbench run``
    (``cards.request.Request``); ``recipe``: the resolved card; ``summary``: level -> summary name -> value of
    AUROC; ``records_sha256``: hashes of the result files; ``resumed``: how many experiences were trained each
    time the run was resumed; ``thresholds``: of a finished run with ``--threshold``; ``other``: keys unknown
    to this version.
    """

    id: str
    status: Status
    recipe_hash: str
    seed: int
    dataset: DatasetRecord
    protocol: ProtocolRecord
    strategy: StrategyRecord
    kind: Kind = "trained"
    submission: SubmissionRecord | None = None
    warnings: list[str] = field(default_factory=list)
    iufbench: str | None = None
    scores_version: Count = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    preset: Name | None = None
    seeds: dict[str, int | None] = field(default_factory=dict)
    backbone: BackboneRecord = field(default_factory=BackboneRecord)
    image_size: Side | None = None
    map_size: Side | None = None
    environment: Environment = field(default_factory=Environment)
    request: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
    started: str | None = None
    finished: str | None = None
    seconds: Seconds = field(default_factory=Seconds)
    costs: Costs = field(default_factory=Costs)
    summary: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    records_sha256: dict[str, str] = field(default_factory=dict)
    resumed: list[Count] = field(default_factory=list)
    shared_base: SharedBase | None = None
    parent: Parent | None = None
    thresholds: ThresholdRecord | None = None
    error: str | None = None
    other: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.status == COMPLETE

    @property
    def external(self) -> bool:
        """Whether submitted scores were evaluated, instead of a strategy that was trained here."""
        return self.kind == EXTERNAL

    @property
    def label(self) -> str:
        """The name of the strategy in tables and figures; external ones are marked."""
        return f"{self.strategy.label} (external)" if self.external else self.strategy.label

    def as_dict(self) -> dict[str, Any]:
        """Plain values as in ``run.json``, without fields that were not recorded."""
        plain = dataclasses.asdict(self)
        other = plain.pop("other")
        for part in ("seconds", "costs"):
            plain[part] = {k: v for k, v in plain[part].items() if v is not None and v == v}
        optional = [f.name for f in dataclasses.fields(self) if f.default_factory is not dataclasses.MISSING]
        empty = [k for k, v in plain.items() if v is None or (k in optional and not v)]
        return {"format": FORMAT, **{k: v for k, v in plain.items() if k not in empty}, **other}


_FIELDS = {f.name for f in dataclasses.fields(RunRecord)} - {"other"} | {"format"}


def record_from(plain: Mapping[str, Any], where: Path | str) -> RunRecord:
    """Build the record from plain values. Raises RunError with file and key of a value that is invalid."""
    if plain.get("format") != FORMAT:
        raise RunError(
            f"{where}: format {plain.get('format')!r}; this iufbench reads format {FORMAT} "
            f"(written by iufbench {plain.get('iufbench')})"
        )
    try:
        record = msgspec.convert({k: v for k, v in plain.items() if k != "other"}, RunRecord)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        reason, _, key = str(error).partition(" - at `$.")
        key = key.rstrip("`")
        raise RunError(f"{where}: {key + ': ' if key else ''}{reason[:1].lower()}{reason[1:]}") from error
    record.other = {k: v for k, v in plain.items() if k not in _FIELDS}
    _check(record, where)
    return record


def _check(record: RunRecord, where: Path | str) -> None:
    experiences = record.protocol.experiences
    if not experiences or not all(experiences):
        raise RunError(f"{where}: protocol.experiences must be a list of non-empty lists of objects")
    if len(experiences) > MAX_EXPERIENCES or sum(map(len, experiences)) > MAX_OBJECTS:
        raise RunError(
            f"{where}: the protocol has {len(experiences):,} experiences and {sum(map(len, experiences)):,} "
            f"objects; the limits are {MAX_EXPERIENCES:,} and {MAX_OBJECTS:,}"
        )
    once = experiences if record.protocol.stream else [[obj for e in experiences for obj in e]]
    if any(len(set(objects)) < len(objects) for objects in once):
        raise RunError(f"{where}: protocol.experiences must name every object once")
    for name in record.protocol.objects:
        problem = problem_with_name(name)
        if problem is not None:
            raise RunError(f"{where}: protocol.experiences: {name[:100]!r} cannot name an object: {problem}")
    own = None if record.thresholds is None else record.thresholds.rule
    for key, rule in (("thresholds.rule", own), ("request.threshold", record.request.get("threshold"))):
        try:
            _ = rule is None or read_rule(str(rule))
        except InputError as error:
            raise RunError(f"{where}: {key}: {error}") from error
    try:
        expected = run_id(
            record.dataset.name, record.protocol.id, record.strategy.name, record.recipe_hash, record.seed
        )
    except InputError as error:
        raise RunError(f"{where}: {error}") from error
    if record.external != record.strategy.name.startswith(EXTERNAL_PREFIX):
        raise RunError(
            f"{where}: an external run, and no other, has a strategy name with '{EXTERNAL_PREFIX}'"
        )
    if record.id != expected:
        raise RunError(f"{where}: id is {record.id!r} but its own fields say {expected!r}")


def read_record(run: Path) -> RunRecord:
    """Read ``run.json`` of a run directory. Raises RunError with file and key if it is corrupted."""
    return record_from(read_json(run / INFO, MAX_BYTES), run / INFO)


def write_record(run: Path | str, record: RunRecord) -> Path:
    """Write ``run.json`` atomically."""
    return write_json(Path(run) / INFO, record.as_dict())
