"""Writes a synthetic data set to disk: in parallel, with progress, completely or not at all."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from iufbench.support.errors import InputError
from iufbench.support.files import work_folder
from iufbench.support.processes import cores, end_with_parent

from .layout import Job, plan, visa_split
from .render import GENERATOR_VERSION, NORMAL_KINDS, get_scene, get_scenes, render_image

MARKER = "SYNTHETIC.json"
NOTICE = (
    "Synthetic data: every image was drawn by iufbench's own generator. Object names stand for fitting drawn "
    "scenes; no image shows, contains or derives from a real photograph, and results are not comparable to "
    "results on the real data set."
)
MOST = 100_000  # images of each kind per object; processes are fewer
DEFAULT_COUNTS = {"n_train": 40, "n_good": 15, "n_defective": 24}
_JPEG_QUALITY = 95
_CHUNK = 8  # images per task of a worker
_WORTH_WORKERS = 64  # below this number of images, starting processes costs more than it saves


def make(
    root: Path | str,
    dataset: str = "visa",
    objects: Sequence[str] | None = None,
    n_train: int = DEFAULT_COUNTS["n_train"],
    n_good: int = DEFAULT_COUNTS["n_good"],
    n_defective: int = DEFAULT_COUNTS["n_defective"],
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> int:
    """Write a synthetic data set in the layout of the original.

    Images are 256x256. All bytes depend only on data set, objects, counts and seed, and every image only on
    its own key: larger sets contain smaller ones. The folder appears when it is complete; an interrupted call
    leaves nothing behind.

    Args:
        root: Output folder, empty or nonexistent.
        dataset: ``visa`` or ``mvtec``.
        objects: Names of objects; None for all.
        n_train: Normal training images per object.
        n_good: Normal test images per object.
        n_defective: Defective test images per object.
        seed: Seed of all images.
        workers: Processes; None: one per core. The result does not depend on it.
        progress: Show a bar.

    Returns:
        The number of images written, not counting masks.

    Raises:
        InputError: A name is unknown, a count is invalid, or the folder is not empty or cannot be written.
    """
    root = Path(root).absolute()
    names = _check_objects(dataset, objects)
    _check_counts(n_train, n_good, n_defective, seed, workers)
    jobs = list(plan(dataset, names, n_train, n_good, n_defective, seed))
    processes = _processes(workers, len(jobs))
    with _all_or_nothing(root) as folder:
        for path in {(folder / p).parent for job in jobs for p in (job.image, job.mask) if p}:
            path.mkdir(parents=True, exist_ok=True)
        _write_images(folder, jobs, processes, progress)
        if dataset == "visa":
            (folder / "split_csv").mkdir()
            (folder / "split_csv" / "1cls.csv").write_bytes(visa_split(jobs).encode())
        else:
            for name in names:
                (folder / name / "license.txt").write_text(NOTICE + "\n", encoding="utf-8")
        (folder / MARKER).write_text(_marker(dataset, names, jobs, seed), encoding="utf-8")
    return len(jobs)


def differing(root: Path, dataset: str, seed: int, number: int = 8) -> str:
    """The first of a few random images of a data set of the default size that is not what ``make`` writes.

    Returns its name, "" if all agree.
    """
    jobs = list(plan(dataset, _check_objects(dataset, None), **DEFAULT_COUNTS, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        for job in random.SystemRandom().sample(jobs, number):
            names = [name for name in (job.image, job.mask) if name]
            for name in names:
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            _write(Path(folder), job)
            for name in names:
                path = root / name
                if not path.is_file() or path.read_bytes() != (Path(folder) / name).read_bytes():
                    return name
    return ""


def _check_objects(dataset: str, objects: Sequence[str] | None) -> list[str]:
    scenes = get_scenes(dataset)
    if objects is None:
        return list(scenes)
    if isinstance(objects, str) or not objects:
        raise InputError(f"objects={objects!r}: give a list of at least one object name, or None for all")
    for name in objects:
        get_scene(dataset, name)
    doubles = [name for name, n in Counter(objects).items() if n > 1]
    if doubles:
        raise InputError(f"object {doubles[0]!r} is named twice")
    return list(objects)


def _check_counts(n_train: int, n_good: int, n_defective: int, seed: int, workers: int | None) -> None:
    least = {
        "n_train": (n_train, 1),
        "n_good": (n_good, 0),
        "n_defective": (n_defective, 0),
        "seed": (seed, 0),
    }
    if workers is not None:
        least["workers"] = (workers, 1)
    for name, (value, low) in least.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"{name}={value!r}: give a whole number of at least {low}")
        if name != "seed" and value > MOST:
            raise InputError(f"{name} is a number of {len(str(value))} digits; the limit is {MOST:,}")
    if seed >= 1 << 32:
        raise InputError(f"seed={seed}: give a seed below 2**32")


def _processes(workers: int | None, jobs: int) -> int:
    if workers is not None:
        return min(workers, jobs)
    return cores() if jobs >= _WORTH_WORKERS else 1


@contextmanager
def _all_or_nothing(root: Path) -> Iterator[Path]:
    """A new folder beside ``root`` that is renamed to it on success and removed on failure."""
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        kind = "is not empty" if root.is_dir() else "is a file"
        raise InputError(f"{root} {kind}: choose another folder, or remove it first")
    try:
        with work_folder(root) as folder:
            yield folder
            if root.exists():
                if any(root.iterdir()):
                    raise InputError(
                        f"{root} was filled by another process in the meantime: check it, or choose another"
                    )
                root.rmdir()
            folder.rename(root)
    except OSError as error:
        raise InputError(f"cannot write {root}: {error.strerror}; free space or choose another") from error


def _write_images(folder: Path, jobs: list[Job], processes: int, progress: bool) -> None:
    hidden = not progress or not sys.stderr.isatty()
    write = partial(_write, folder)
    if processes == 1:
        for job in tqdm(jobs, "drawing", unit="image", file=sys.stderr, disable=hidden):
            write(job)
        return
    # Forked workers need no importable __main__; they only render, so a parent with torch is safe.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context(method), _start)
    try:
        done = pool.map(write, jobs, chunksize=_CHUNK)
        for _ in tqdm(done, "drawing", len(jobs), unit="image", file=sys.stderr, disable=hidden):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    end_with_parent()


def _write(folder: Path, job: Job) -> None:
    image, mask = render_image(job.dataset, job.object, job.kind, job.index, job.seed)
    if get_scene(job.dataset, job.object).grey:
        image = image[..., 0]  # three equal channels: written as greyscale, as in MVTec AD
    path = folder / job.image
    if path.suffix == ".JPG":
        Image.fromarray(image).save(path, quality=_JPEG_QUALITY)
    else:
        Image.fromarray(image).save(path, compress_level=1)
    if mask is not None:
        Image.fromarray(mask.astype(np.uint8) * np.uint8(job.ink)).save(folder / job.mask, compress_level=1)


def _marker(dataset: str, names: list[str], jobs: list[Job], seed: int) -> str:
    counts = {}
    for name in names:
        kinds = Counter(job.kind for job in jobs if job.object == name)
        train, good = (kinds.pop(kind, 0) for kind in NORMAL_KINDS)
        counts[name] = {"train": train, "test_good": good, "test_defective": dict(kinds)}
    content = {
        "synthetic": True,
        "notice": NOTICE,
        "dataset": f"{dataset}-synthetic",
        "layout": dataset,
        "generator": "iufbench.data.synthetic",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "images": len(jobs),
        "objects": counts,
    }
    return json.dumps(content, indent=2) + "\n"
