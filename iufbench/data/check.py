"""Complete verification of a data set: every file is opened, every mask compared, nothing is changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Literal

from tqdm import tqdm

from iufbench.data.images import read_image, read_mask
from iufbench.data.processes import in_processes
from iufbench.data.samples import DataSet, Sample
from iufbench.errors import InputError, RunError

CHUNK = 16


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (``error``) or strange (``warning``).

    ``path`` is the file concerned, relative to the data root with forward slashes; "" where none is.
    """

    severity: Literal["error", "warning"]
    object: str
    path: str
    message: str


def check_dataset(
    dataset: DataSet,
    expected: Mapping[str, Mapping[str, int]] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> list[Finding]:
    """Everything that is wrong with a data set; an empty list when nothing is.

    ``expected``: ``{object: {"train": n, "test_good": n, "test_defective": n}}`` as on a data set
    card; None skips the counts. Checked: counts, that both kinds of test images are there (a warning),
    that every image can be decoded, that every mask fits its image and marks something, and equal
    pictures: an error where one is listed as normal and as defective, a warning where a test image is
    also a training image.

    ``workers``: processes, None for one per available core; the result does not depend on it. A bar
    is shown on a terminal when ``progress``. Raises RunError if a worker process dies.
    """
    findings = _one_kind_findings(dataset)
    findings += [] if expected is None else _count_findings(dataset, expected)
    pictures: dict[bytes, list[Sample]] = {}
    with tqdm(
        total=len(dataset.samples), desc="check", unit="image", disable=None if progress else True
    ) as bar:
        for sample, (picture, problems) in _inspect_all(dataset, workers):
            bar.update()
            path = _relative(dataset, sample)
            findings += [Finding("error", sample.object, path, problem) for problem in problems]
            if picture:
                pictures.setdefault(picture, []).append(sample)
    return findings + _duplicate_findings(dataset, pictures)


def _relative(dataset: DataSet, sample: Sample) -> str:
    return sample.image.relative_to(dataset.root).as_posix()


def _count_findings(dataset: DataSet, expected: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    findings = []
    found = dataset.counts()
    for name, counts in expected.items():
        if name not in found:
            findings.append(Finding("error", name, "", f"object {name!r} is missing"))
            continue
        for kind, want in counts.items():
            have = found[name][kind]
            if have != want:
                text = f"{have} {kind.replace('_', ' ')} images, officially {want}"
                findings.append(Finding("error", name, "", text))
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


def _inspect(sample: Sample, has_masks: bool) -> tuple[bytes, list[str]]:
    """(hash of the decoded picture, b"" if it cannot be decoded; problems)."""
    problems = []
    picture = b""
    try:
        pixels = read_image(sample.image)
        digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
        digest.update(pixels.tobytes())
        picture = digest.digest()
    except InputError as error:
        problems.append(str(error))
    if sample.label == 1 and has_masks and picture:
        try:
            read_mask(sample)
        except InputError as error:
            problems.append(str(error))
    return picture, problems


def _inspect_chunk(chunk: Sequence[Sample], has_masks: bool) -> list[tuple[bytes, list[str]]]:
    return [_inspect(sample, has_masks) for sample in chunk]


def _inspect_all(dataset: DataSet, workers: int | None) -> Iterator[tuple[Sample, tuple[bytes, list[str]]]]:
    """Samples with their results, in the data set's order."""
    samples = dataset.samples
    chunks = [samples[k : k + CHUNK] for k in range(0, len(samples), CHUNK)]
    inspect = partial(_inspect_chunk, has_masks=dataset.has_masks)
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
