"""``iufbench board check``: recomputes the numbers of a submitted run directory from its scores."""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from iufbench.cards.datasets import dataset_card
from iufbench.cards.protocols import resolve_protocol
from iufbench.data.download.extract import Bounded
from iufbench.reporting.collect import TOLERANCE, changed_files, other_summaries
from iufbench.reporting.record import INFO, MAX_BYTES
from iufbench.reporting.rundir import LIMITS, RECORDS, SCORES
from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import PathOrText, open_file, write_bytes
from iufbench.trust.differences import Difference, image_differences

SIZES = {INFO: MAX_BYTES, **{name: LIMITS[name] for name in RECORDS}}  # what is read of an archive
MOST_MEMBERS, MOST_BYTES = 100_000, 2**36  # of an archive, unpacked


@dataclass(frozen=True)
class Submission:
    """The result of ``board_check``, in lines: ``checked``, ``unchecked`` and ``differences``."""

    run: str
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.differences


def board_check(path: PathOrText) -> Submission:
    """Recompute the numbers of a run directory without data, code or checkpoints.

    Hashes of the files are compared with ``run.json``, image metrics are recomputed from ``scores.csv.gz``
    and summaries from ``metrics.csv`` (to 1e-9), and images, labels and protocol are compared with the cards.
    Pixel metrics cannot be recomputed without anomaly maps.

    Args:
        path: A run directory, or a .zip or .tar (also compressed) with one. Only the result files are
            read, within the limits of any run directory.

    Returns:
        What was checked, what was not, and what differs.

    Raises:
        InputError: The file does not exist or has no run or several, the run is not complete, or a file is
            corrupted.
    """
    with _folder(Path(path)) as folder:
        try:
            run = load_run(folder)
            if not run.complete:
                raise InputError(f"{folder}: the run is {run.record.status}, not complete")
            if not os.path.lexists(folder / SCORES):
                raise InputError(f"{folder}: no {SCORES}, so nothing can be recomputed")
            return _checked(run)
        except (InputError, RunError) as error:
            raise InputError(str(error).replace(str(folder), str(path))) from error


def _checked(run: Run) -> Submission:
    told, scores = run.record.records_sha256, run.scores()
    unhashed = sorted(n for n in RECORDS if n not in told and os.path.lexists(run.path / n))
    checked = [f"{INFO}: SHA-256 of {len(told)} files compared"] if told else []
    unchecked = [f"{name}: {INFO} has no hash of it" for name in unhashed]
    differences = changed_files(run)

    found = [d for d in image_differences(run) if not _rounding(d)]
    values = run.metrics["level"].value_counts()
    checked.append(f"{SCORES}: image metrics of {len(scores):,} scores recomputed")
    differences += map(str, found)
    if values.get("pixel"):
        unchecked.append(f"pixel metrics: {values['pixel']:,} values, which need the anomaly maps")
    subsets = run.metrics["metric"].str.startswith("auroc_") & (run.metrics["level"] == "image")
    if subsets.any():
        unchecked.append(f"AUROC of kinds of defects: {subsets.sum():,} values, which need the data set")
    differences += other_summaries(run)
    checked.append(f"{INFO}: summaries recomputed from metrics.csv")

    differences += _missing(run)
    sets = scores.groupby(["object", "experience"])[["image", "label"]]
    images = {name: frozenset(map(tuple, rows.to_numpy())) for name, rows in sets}
    first: dict[str, tuple[int, frozenset[tuple[object, ...]]]] = {}
    for (name, experience), content in images.items():
        before, expected = first.setdefault(name, (experience, content))
        if content != expected:
            differences.append(
                f"{name}: other images or labels after experience {experience} than after {before}"
            )
    checked.append(f"{SCORES}: every object has the same images and labels after every experience")
    _compare_cards(
        run, {name: content for name, (_, content) in first.items()}, checked, unchecked, differences
    )
    return Submission(run.id, tuple(checked), tuple(unchecked), tuple(differences))


def _rounding(found: Difference) -> bool:
    """Whether two values differ by no more than those of two machines."""
    return abs(found.stored - found.again) <= TOLERANCE


def _missing(run: Run) -> list[str]:
    """Seen objects without any metric after an experience."""
    if "auroc" not in run.names("image"):
        return ["metrics.csv has no image AUROC"]
    known = set(zip(run.measured.experience.tolist(), run.measured.column.tolist()))
    seen = run.matrix("image").seen
    return [
        f"metrics.csv: {name} is missing after experience {t}"
        for t in range(len(seen))
        for i, name in enumerate(run.objects)
        if seen[t, i] and (t, i) not in known
    ]


def _compare_cards(
    run: Run,
    images: dict[str, frozenset[tuple[object, ...]]],
    checked: list[str],
    unchecked: list[str],
    differences: list[str],
) -> None:
    """Compare protocol and numbers of test images with the cards that come with iufbench."""
    record = run.record
    name = record.dataset.name.removesuffix("-synthetic")
    try:
        card = dataset_card(name)
    except InputError:
        card = None
    if card is None:
        unchecked.append(
            f"images, labels and protocol: there is no card of the data set '{record.dataset.name}'"
        )
        return
    if record.dataset.synthetic:
        unchecked.append("numbers of images: the data are synthetic")
    elif record.protocol.stream is not None:
        unchecked.append("numbers of images: the stream changes the data")
    else:
        for obj, content in images.items():
            expected = card.counts.get(obj)
            bad = sum(label == 1 for _, label in content)
            if expected is None:
                unchecked.append(f"numbers of images of {obj}: the card of {name} has none")
            elif (len(content) - bad, bad) != (expected["test_good"], expected["test_defective"]):
                differences.append(
                    f"{obj}: {len(content) - bad} good and {bad} defective test images; the card of {name} "
                    f"has {expected['test_good']} and {expected['test_defective']}"
                )
        checked.append(f"{SCORES}: numbers of good and defective images compared with the card of {name}")
    if "+" in record.protocol.id or record.protocol.stream is not None:
        unchecked.append(f"protocol: '{record.protocol.id}' has a different order or a stream")
        return
    try:
        steps = [list(step) for step in resolve_protocol(record.protocol.id, card.objects).experiences]
    except InputError:
        unchecked.append(f"protocol: '{record.protocol.id}' does not exist on all objects of {name}")
        return
    told = run.experiences
    joint = len(told) == 1 and set(told[0]) == {obj for step in steps for obj in step}
    if told != steps and not joint:
        differences.append(f"protocol {record.protocol.id}: experiences {told}, on the card {steps}")
    checked.append(f"{INFO}: experiences compared with protocol {record.protocol.id}")


# ---- archives ----------------------------------------------------------------------------------------


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """The run directory: ``path`` itself, or the files of results of an archive in a temporary folder."""
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise InputError(f"{path}: there is no such file or folder")
    with tempfile.TemporaryDirectory(prefix="iufbench-check-") as made:
        folder = Path(made) / "run"
        folder.mkdir()
        try:
            with open_file(path, MOST_BYTES) as file:
                read = _from_zip if zipfile.is_zipfile(file) else _from_tar
                file.seek(0)
                read(path, file, folder)
        except (
            *(zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError),
            *(NotImplementedError, RuntimeError, ValueError),
        ) as error:
            reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
            raise InputError(
                f"{path}: neither a run directory nor a .zip or .tar with one ({reason})"
            ) from error
        except RunError as error:
            raise InputError(str(error)) from error
        yield folder


def _from_zip(path: Path, file: IO[bytes], folder: Path) -> None:
    with zipfile.ZipFile(file) as packed:
        members = [m for m in packed.infolist() if not m.is_dir() and not stat.S_ISLNK(m.external_attr >> 16)]
        wanted = _wanted(path, {m.filename: m.file_size for m in members})
        for name in wanted:
            with packed.open(name) as source:
                _keep(path, source, name, folder)


def _from_tar(path: Path, file: IO[bytes], folder: Path) -> None:
    with tarfile.open(fileobj=file, mode="r:*", tarinfo=Bounded) as packed:
        sizes: dict[str, int] = {}
        total = 0
        for member in packed:
            total += member.size
            if total > MOST_BYTES or len(sizes) > MOST_MEMBERS:
                raise InputError(f"{path}: more than {MOST_MEMBERS:,} files or {MOST_BYTES >> 30} GiB")
            if member.isreg():
                sizes[member.name] = member.size
        for name in _wanted(path, sizes):
            source = packed.extractfile(name)
            assert source is not None  # a regular file
            with source:
                _keep(path, source, name, folder)


def _wanted(path: Path, sizes: dict[str, int]) -> list[str]:
    """The result files beside the only ``run.json``."""
    if len(sizes) > MOST_MEMBERS:
        raise InputError(f"{path}: more than {MOST_MEMBERS:,} files")
    places = {PurePosixPath(name).parent for name in sizes if PurePosixPath(name).name == INFO}
    if len(places) != 1:
        many = f"{len(places)} runs: check one at a time" if places else f"no run: there is no {INFO} in it"
        raise InputError(f"{path} holds {many}")
    (place,) = places
    return [n for n in sizes if PurePosixPath(n).parent == place and PurePosixPath(n).name in SIZES]


def _keep(path: Path, source: IO[bytes], name: str, folder: Path) -> None:
    file = PurePosixPath(name).name
    data = source.read(SIZES[file] + 1)
    if len(data) > SIZES[file]:
        raise InputError(f"{path}: {name} has more than {SIZES[file]:,} bytes")
    write_bytes(folder / file, data)
