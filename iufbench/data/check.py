"""Complete verification of a data set: every file is read and every mask checked; nothing is modified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from iufbench.cards.datasets import dataset_card, own_card
from iufbench.cards.protocols import require_dataset_name
from iufbench.cards.registry import card_paths
from iufbench.data.datasets import MIXED, known_objects, open_dataset
from iufbench.data.decoding import Decoding
from iufbench.data.images import read_image
from iufbench.data.masks import MaskFacts, doubts, inspect_mask
from iufbench.data.samples import DataSet, Sample
from iufbench.data.survey import surveyed
from iufbench.data.undefined import undefined_lines
from iufbench.support.errors import InputError, RunError, one_line
from iufbench.support.processes import in_processes

CHUNK = 16
Result = tuple[bytes, list[str], MaskFacts | None]
KINDS = ("train", "test_good", "test_defective")
MORE_KINDS = ("train_defective", "validation")  # shown for data sets that have them
# How a card's counts are described: in the last line of a report, and before a count that differs.
COUNTS_ARE = {
    "official": ("the official ones", "officially"),
    "unverified": ("the collected ones", "according to papers and recollection"),
    "own": ("those of the card", "on the card"),
}


@dataclass(frozen=True)
class Finding:
    """One finding: a fault (``error``), a likely fault (``warning``) or information (``note``).

    ``path`` is the affected file, relative to the data root with forward slashes; "" if there is none.
    """

    severity: Literal["error", "warning", "note"]
    object: str
    path: str
    message: str


@dataclass(frozen=True)
class Report:
    """The result of ``check_folder``: image ``counts`` per object and split, ``expected`` counts, findings.

    ``counts_are``: origin of the expected counts (``COUNTS_ARE``); ``known``: number of objects on the data
    set's card, None without a card.
    """

    dataset: str
    images: int
    counts: dict[str, dict[str, int]]
    expected: Mapping[str, Mapping[str, int]] | None
    findings: list[Finding]
    counts_are: str = "official"
    known: int | None = None

    @property
    def errors(self) -> int:
        return sum(f.severity == "error" for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-serialisable values."""
        findings = [{**vars(f), "path": f.path or None} for f in self.findings]
        counts = {"counts": self.counts, "official": self.expected, "counts_are": self.counts_are}
        return {
            "dataset": self.dataset,
            "images": self.images,
            "objects": len(self.counts),
            "objects_known": self.known,
            **counts,
            "findings": findings,
        }

    def as_text(self) -> str:
        """The report as text: counts compared with the card, all findings, and a summary line."""
        lines = []
        if self.counts:
            width = max(len("object"), *map(len, self.counts))
            more = [kind for kind in MORE_KINDS if any(kind in found for found in self.counts.values())]
            titles = ["train", "test good", "defective", *(kind.replace("_", " ") for kind in more)]
            lines.append(f"{'object':{width}}  " + "  ".join(f"{title:>11}" for title in titles))
        for name, found in self.counts.items():
            wanted = (self.expected or {}).get(name, {})
            cells = [_count(found.get(kind, 0), wanted.get(kind)) for kind in (*KINDS, *more)]
            lines.append(f"{name:{width}}  " + "  ".join(f"{cell:>11}" for cell in cells))
        for f in self.findings:
            lines.append(one_line(f"{f.severity}: {f.path or f.object or self.dataset}: {f.message}"))
        none = "no counts on the card" if self.counts_are == "own" else "no official counts"
        compared = f"counts compared with {COUNTS_ARE[self.counts_are][0]}" if self.expected else none
        of = "" if self.known in (None, len(self.counts)) else f" of {self.known}"
        number = f"{self.images} images, {len(self.counts)}{of} objects ({compared})"
        warnings = sum(f.severity == "warning" for f in self.findings)
        lines.append(f"{self.dataset}: {number}, {self.errors} errors, {warnings} warnings")
        return "\n".join(lines)


def _count(found: int, official: int | None) -> str:
    return str(found) if official is None or found == official else f"{found} of {official}"


def check_folder(
    root: Path,
    name: str,
    workers: int | None = None,
    progress: bool = True,
    objects: Sequence[str] | None = None,
    card_file: Path | None = None,
    good: Sequence[str] = (),
    max_pixels: int | None = None,
    accept_masks: bool = False,
    lists: tuple[Path, ...] | None = None,
) -> Report:
    """Check a folder that should contain the data set ``name``.

    If the folder cannot be read as this data set, that is a finding as well; objects are then checked one by
    one, so that a fault in one object does not hide faults in others.

    Args:
        root: The folder.
        name: Name of the data set.
        workers: Processes, None for one per available core; the result does not depend on it.
        progress: Show a bar on a terminal.
        objects: Check only these; counts that differ from the card's are then warnings, not errors.
        card_file: The user's own card, as in ``open_dataset``.
        good: Further names of folders with normal images, as in ``open_dataset``.
        max_pixels: Size limit of images, as in ``open_dataset``.
        accept_masks: Do not report doubtful masks.
        lists: Lists of the images, as in ``open_dataset``; all their objects are checked.

    Returns:
        The report.

    Raises:
        InputError: The name is misspelt, or cannot name a data set.
        RunError: A worker process died.
    """
    card = dataset_card(name, card_file)
    if card is None:
        require_dataset_name(name)
        if name == MIXED or name.lower() in card_paths("dataset"):
            known_objects(name, root)  # raises: results on MVTec AD are not those of a custom "MVTec"
    given: dict[str, Any] = {
        "root": root,
        "lists": lists,
        "card_file": card_file,
        "good": good,
        "max_pixels": max_pixels,
    }
    wanted = objects if objects is not None or card is None or lists else card.objects
    try:
        opened = [open_dataset(name, wanted, **given)]
        findings: list[Finding] = []
    except InputError as error:
        findings = [Finding("error", "", "", str(error))]
        opened = []
        for one in wanted or ():
            try:
                opened.append(open_dataset(name, (one,), **given))
            except InputError as fault:
                if str(fault) != str(error):
                    findings.append(Finding("error", one, "", str(fault)))
    synthetic = any(dataset.synthetic for dataset in opened)
    expected = None if card is None or synthetic else card.counts or None
    counts_are: str = "official" if card is None else card.counts_are
    if own_card(name, card_file) is not None:
        counts_are = "own"
    counts: dict[str, dict[str, int]] = {}
    for dataset in opened:
        counts |= dataset.counts()
        own = expected
        if own is not None and (findings or objects is not None or counts_are == "own"):
            own = {o: own[o] for o in dataset.objects if o in own}
        partial = objects is not None
        findings += check_dataset(dataset, own, workers, progress, counts_are, accept_masks, partial)
    images = sum(len(dataset.samples) for dataset in opened)
    filed, known = opened[0].name if opened else name, None if card is None else len(card.objects)
    return Report(filed, images, counts, expected, findings, counts_are, known)


def check_dataset(
    dataset: DataSet,
    expected: Mapping[str, Mapping[str, int]] | None = None,
    workers: int | None = None,
    progress: bool = True,
    counts_are: str = "official",
    accept_masks: bool = False,
    partial: bool = False,
) -> list[Finding]:
    """Check a data set.

    Checks the counts, that both normal and defective test images exist (a warning), that every image can be
    decoded, that every mask matches the size of its image and is not empty, likely faults of masks (one
    warning per object and fault, as in ``iufbench run``), and duplicate images: an error if listed both as
    normal and as defective, a warning if a test image is also a training image. Unusual decoding is a note.

    Args:
        dataset: The data set.
        expected: ``{object: {"train": n, "test_good": n, "test_defective": n}}`` as on a data set card; None
            skips the counts.
        workers: Processes, None for one per available core; the result does not depend on it.
        progress: Show a bar on a terminal.
        counts_are: Origin of ``expected`` (``COUNTS_ARE``); differences from unverified counts are warnings.
        accept_masks: Do not report doubtful masks.
        partial: The data are an incomplete copy: differences from ``expected`` are warnings.

    Returns:
        The findings, empty if there are none.

    Raises:
        RunError: A worker process died.
    """
    dataset = surveyed(dataset)
    findings = [Finding("note", "", "", note) for note in dataset.notes] + _undefined_findings(dataset)
    findings += [] if expected is None else _count_findings(dataset, expected, counts_are, partial)
    pictures: dict[bytes, list[Sample]] = {}
    looked_at: list[tuple[Sample, MaskFacts]] = []
    with tqdm(
        total=len(dataset.samples), desc="check", unit="image", disable=None if progress else True
    ) as bar:
        for sample, (picture, problems, facts) in _inspect_all(dataset, workers):
            bar.update()
            path = _relative(dataset, sample)
            findings += [Finding("error", sample.object, path, problem) for problem in problems]
            if facts is not None:
                looked_at.append((sample, facts))
            if picture:
                pictures.setdefault(picture, []).append(sample)
    if not accept_masks:
        for doubt in doubts(looked_at):
            path = _relative(dataset, doubt.sample)
            findings.append(Finding("warning", doubt.object, path, doubt.message))
    return findings + _duplicate_findings(dataset, pictures)


def _relative(dataset: DataSet, sample: Sample) -> str:
    return sample.image.relative_to(dataset.root).as_posix()


def _count_findings(
    dataset: DataSet, expected: Mapping[str, Mapping[str, int]], counts_are: str, partial: bool
) -> list[Finding]:
    findings = []
    certain = counts_are != "unverified" and not partial
    severity: Literal["error", "warning"] = "error" if certain else "warning"
    found = dataset.counts()
    for name, counts in expected.items():
        if name not in found:
            findings.append(Finding("error", name, "", f"object {name!r} is missing"))
            continue
        for kind, want in counts.items():
            have = found[name].get(kind, 0)
            if have != want:
                text = f"{have} {kind.replace('_', ' ')} images, {COUNTS_ARE[counts_are][1]} {want}"
                findings.append(Finding(severity, name, "", text))
    if counts_are == "own":  # which may have counts for some objects only
        return findings
    extra = [name for name in dataset.objects if name not in expected]
    return findings + [Finding("warning", n, "", f"object {n!r} is not an official one") for n in extra]


def _undefined_findings(dataset: DataSet) -> list[Finding]:
    return [
        Finding("warning", name, "", line.removeprefix(f"{name}: "))
        for name in dataset.objects
        for line in undefined_lines(dataset, (name,))
    ]


def _inspect(sample: Sample, how: Decoding) -> Result:
    """(hash of the decoded image, b"" if it cannot be decoded; problems; properties of its mask)."""
    problems: list[str] = []
    facts: MaskFacts | None = None
    picture = b""
    try:
        pixels = read_image(sample.image, how)
        digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
        digest.update(pixels.tobytes())
        picture = digest.digest()
    except InputError as error:
        problems.append(str(error))
    if sample.mask is not None and picture:
        try:
            facts = inspect_mask(sample, how)[1]
        except InputError as error:
            problems.append(str(error))
    return picture, problems, facts


def _inspect_chunk(chunk: Sequence[Sample], how: Decoding) -> list[Result]:
    return [_inspect(sample, how) for sample in chunk]


def _inspect_all(dataset: DataSet, workers: int | None) -> Iterator[tuple[Sample, Result]]:
    """All samples with their results, in the data set's order."""
    samples = dataset.samples
    chunks = [samples[k : k + CHUNK] for k in range(0, len(samples), CHUNK)]
    inspect = partial(_inspect_chunk, how=dataset.decoding)
    try:
        for chunk, results in zip(chunks, in_processes(inspect, chunks, workers)):
            yield from zip(chunk, results)
    except BrokenProcessPool as error:
        raise RunError("a worker process died while checking images: try again with --workers 1") from error


def _duplicate_findings(dataset: DataSet, pictures: Mapping[bytes, Sequence[Sample]]) -> list[Finding]:
    findings = []
    for same in pictures.values():
        first = same[0]
        training = next((s for s in same if s.split == "train"), None)
        for sample in same[1:]:
            path = _relative(dataset, sample)
            if sample.label != first.label:
                twin = _relative(dataset, first)
                text = f"same picture as {twin}, but one is listed as normal, one as defective"
                findings.append(Finding("error", sample.object, path, text))
            elif sample.split == "test" and training is not None:
                text = f"test image is the same picture as training image {_relative(dataset, training)}"
                findings.append(Finding("warning", sample.object, path, text))
    return findings
