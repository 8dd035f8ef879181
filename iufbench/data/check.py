"""Complete verification of a data set: every file is opened, every mask compared, nothing is changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from iufbench.cards.datasets import dataset_cards
from iufbench.data.datasets import known_objects, open_dataset
from iufbench.data.images import has_many_values, read_image, read_mask
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError, RunError, one_line
from iufbench.support.processes import in_processes

CHUNK = 16
MASK_VALUES = 16  # the official masks have at most this many values: 0 and 255, or 0 and classes
Result = tuple[bytes, list[str], list[str]]
KINDS = ("train", "test_good", "test_defective")
MORE_KINDS = ("train_defective", "validation")  # shown where a data set has them


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (``error``) or strange (``warning``).

    ``path`` is the file concerned, relative to the data root with forward slashes; "" where none is.
    """

    severity: Literal["error", "warning"]
    object: str
    path: str
    message: str


@dataclass(frozen=True)
class Report:
    """What ``check_folder`` found: ``counts`` of images per object and split, and as they should be."""

    dataset: str
    images: int
    counts: dict[str, dict[str, int]]
    expected: Mapping[str, Mapping[str, int]] | None
    findings: list[Finding]
    counts_are: str = "official"

    @property
    def errors(self) -> int:
        return sum(f.severity == "error" for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        findings = [{**vars(f), "path": f.path or None} for f in self.findings]
        counts = {"counts": self.counts, "official": self.expected}
        return {"dataset": self.dataset, "images": self.images, **counts, "findings": findings}

    def as_text(self) -> str:
        """The counts beside the official ones, every finding, and the sum."""
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
        compared = (
            f"counts compared with the {'official' if self.counts_are == 'official' else 'collected'} ones"
        )
        official = "no official counts" if self.expected is None else compared
        number = f"{self.images} images, {len(self.counts)} objects ({official})"
        warnings = len(self.findings) - self.errors
        lines.append(f"{self.dataset}: {number}, {self.errors} errors, {warnings} warnings")
        return "\n".join(lines)


def _count(found: int, official: int | None) -> str:
    return str(found) if official is None or found == official else f"{found} of {official}"


def check_folder(root: Path, name: str, workers: int | None = None, progress: bool = True) -> Report:
    """Everything that is wrong with a folder that should be the data set ``name``.

    What cannot be read as one at all is a finding, too; then objects are looked at one by one, so that a
    fault in one hides none in another. Raises InputError for a mistyped name, RunError as ``check_dataset``.
    """
    card = dataset_cards().get(name)
    if card is None and name.lower() in dataset_cards():
        known_objects(name, root)  # raises: results on MVTec AD are not those of a custom "MVTec"
    objects = None if card is None else card.objects
    try:
        opened = [open_dataset(name, objects, root)]
        findings: list[Finding] = []
    except InputError as error:
        findings = [Finding("error", "", "", str(error))]
        opened = []
        for one in objects or ():
            try:
                opened.append(open_dataset(name, (one,), root))
            except InputError as fault:
                if str(fault) != str(error):
                    findings.append(Finding("error", one, "", str(fault)))
    synthetic = any(dataset.synthetic for dataset in opened)
    expected = None if card is None or synthetic else card.counts or None
    certain = card is None or card.counts_are == "official"
    counts: dict[str, dict[str, int]] = {}
    for dataset in opened:
        counts |= dataset.counts()
        own = expected if expected is None or not findings else {o: expected[o] for o in dataset.objects}
        findings += check_dataset(dataset, own, workers, progress, certain)
    images = sum(len(dataset.samples) for dataset in opened)
    filed = opened[0].name if opened else name
    return Report(filed, images, counts, expected, findings, "official" if certain else "unverified")


def check_dataset(
    dataset: DataSet,
    expected: Mapping[str, Mapping[str, int]] | None = None,
    workers: int | None = None,
    progress: bool = True,
    certain: bool = True,
) -> list[Finding]:
    """Everything that is wrong with a data set; an empty list when nothing is.

    ``expected``: ``{object: {"train": n, "test_good": n, "test_defective": n}}`` as on a data set
    card; None skips the counts; a difference is a warning only where they are not ``certain``. Checked:
    counts, that both kinds of test images are there (a warning), that every image can be decoded, that every
    mask fits its image and marks something (a warning where it marks everything or looks smoothed), and equal
    pictures: an error where one is listed as normal and as defective, a warning where a test image is also a
    training image.

    ``workers``: processes, None for one per available core; the result does not depend on it. A bar
    is shown on a terminal when ``progress``. Raises RunError if a worker process dies.
    """
    findings = _one_kind_findings(dataset)
    findings += [] if expected is None else _count_findings(dataset, expected, certain)
    pictures: dict[bytes, list[Sample]] = {}
    with tqdm(
        total=len(dataset.samples), desc="check", unit="image", disable=None if progress else True
    ) as bar:
        for sample, (picture, problems, strange) in _inspect_all(dataset, workers):
            bar.update()
            path = _relative(dataset, sample)
            findings += [Finding("error", sample.object, path, problem) for problem in problems]
            findings += [Finding("warning", sample.object, path, text) for text in strange]
            if picture:
                pictures.setdefault(picture, []).append(sample)
    return findings + _duplicate_findings(dataset, pictures)


def _relative(dataset: DataSet, sample: Sample) -> str:
    return sample.image.relative_to(dataset.root).as_posix()


def _count_findings(
    dataset: DataSet, expected: Mapping[str, Mapping[str, int]], certain: bool
) -> list[Finding]:
    findings = []
    severity: Literal["error", "warning"] = "error" if certain else "warning"
    found = dataset.counts()
    for name, counts in expected.items():
        if name not in found:
            findings.append(Finding("error", name, "", f"object {name!r} is missing"))
            continue
        for kind, want in counts.items():
            have = found[name].get(kind, 0)
            if have != want:
                source = "officially" if certain else "according to papers and recollection"
                text = f"{have} {kind.replace('_', ' ')} images, {source} {want}"
                findings.append(Finding(severity, name, "", text))
    extra = [name for name in dataset.objects if name not in expected]
    return findings + [Finding("warning", n, "", f"object {n!r} is not an official one") for n in extra]


def _one_kind_findings(dataset: DataSet) -> list[Finding]:
    findings = []
    for name, counts in dataset.counts().items():
        for kind in ("good", "defective"):
            if counts[f"test_{kind}"] == 0:
                text = f"no {kind} test images: AUROC and the like are undefined"
                findings.append(Finding("warning", name, "", text))
    return findings


def _inspect(sample: Sample) -> Result:
    """(hash of the decoded picture, b"" if it cannot be decoded; problems; what is strange)."""
    problems: list[str] = []
    strange: list[str] = []
    picture = b""
    try:
        pixels = read_image(sample.image)
        digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
        digest.update(pixels.tobytes())
        picture = digest.digest()
    except InputError as error:
        problems.append(str(error))
    if sample.mask is not None and picture:
        try:
            marked = read_mask(sample)
            if marked.all():
                strange.append(f"mask {sample.mask} marks every pixel: is it inverted?")
            if any(has_many_values(file, MASK_VALUES) for file in sample.mask_files):
                text = f"mask {sample.mask} has more than {MASK_VALUES} different values, as if smoothed"
                strange.append(f"{text}: each above 0 counts as defect")
        except InputError as error:
            problems.append(str(error))
    return picture, problems, strange


def _inspect_chunk(chunk: Sequence[Sample]) -> list[Result]:
    return [_inspect(sample) for sample in chunk]


def _inspect_all(dataset: DataSet, workers: int | None) -> Iterator[tuple[Sample, Result]]:
    """Samples with their results, in the data set's order."""
    samples = dataset.samples
    chunks = [samples[k : k + CHUNK] for k in range(0, len(samples), CHUNK)]
    try:
        for chunk, results in zip(chunks, in_processes(_inspect_chunk, chunks, workers)):
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
