"""The gain from decoding and encoding once, as ratios: both sides alternately, in one process, on one thread.

Plain: every epoch opens, decodes and resizes every image and runs the backbone over batches of it, as with a
PyTorch Dataset and DataLoader. Ours: batches from a run's resident inputs, from the second epoch on. Then the
time until a run can start: without a cache, filling it, and with it. Images are synthetic.

Usage: python tests/perf/cache_ratio.py [--images 40] [--size 224] [--repeats 5] [--backbone NAME --weights W]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from iufbench.data.datasets import open_dataset
from iufbench.data.images import load_image
from iufbench.data.resident import Batches, FrozenInputs
from iufbench.data.samples import DataSet, Sample
from iufbench.data.synthetic import make
from iufbench.models.backbone import BackboneSpec, FrozenBackbone
from iufbench.support.progress import Progress

GUIDE, BATCH, TARGET = 56, 16, 50.0


class Plain(Dataset):
    """A sample at a time from its file."""

    def __init__(self, samples: list[Sample], size: int) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(load_image(self.samples[index].image, self.size).copy())


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(dataset: DataSet, backbone: FrozenBackbone, size: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of every kind of work over all images of ``dataset``, ``repeats`` times."""
    samples, ids = list(dataset.samples), [0] * len(dataset.samples)
    found: dict[str, list[float]] = {}

    def note(name: str, work: Callable[[], object]) -> None:
        found.setdefault(name, []).append(seconds(work))

    def plain_epoch() -> None:
        for images in DataLoader(Plain(samples, size), BATCH, shuffle=True):
            backbone.features(images)

    def ready(folder: Path | None) -> FrozenInputs:
        inputs = FrozenInputs(backbone, size, GUIDE, torch.float16)
        if folder is not None:
            inputs.use_cache(folder, dataset, Progress(-1))
        inputs.load(samples, ids)
        return inputs

    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            note("live", lambda: ready(None))
            note("filling", lambda f=folder: ready(f))  # type: ignore[misc]
            note("cached", lambda f=folder: ready(f))  # type: ignore[misc]
            batches = Batches(ready(folder).load(samples, ids), BATCH, torch.Generator().manual_seed(repeat))
        note("plain", plain_epoch)
        list(batches)  # the first epoch
        for _ in range(5):
            note("resident", lambda b=batches: list(b))  # type: ignore[misc]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=40, help="of one object, two thirds of them for training"
    )
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="package", help="random is as fast as any")
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = FrozenBackbone(BackboneSpec(given.backbone, given.weights))
    with tempfile.TemporaryDirectory() as name:
        root, third = Path(name) / "visa", max(given.images // 6, 1)
        make(
            root, objects=["candle"], n_train=4 * third, n_good=third, n_defective=third, workers=1,
            progress=False,
        )  # fmt: skip
        dataset = open_dataset("visa", ["candle"], root)
        found = measure(dataset, backbone, given.size, given.repeats)
    count = len(dataset.samples)
    median = {name: statistics.median(values) for name, values in found.items()}
    print(f"{count} synthetic images at {given.size}x{given.size}, {given.backbone}, one thread")
    print(
        f"medians of {given.repeats}; ratios are of medians, with the smallest and largest of single repeats"
    )

    def show(title: str, slow: str, fast: str, unit: str) -> float:
        singles = [s / f for s in found[slow] for f in found[fast]]
        ratio = median[slow] / median[fast]
        values = {"images/s": (count / median[slow], count / median[fast]), "s": (median[slow], median[fast])}
        one, two = values[unit]
        print(
            f"{title}: {one:.4g} -> {two:.4g} {unit}: {ratio:.1f}x ({min(singles):.1f} to {max(singles):.1f})"
        )
        return ratio

    ratio = show("images ready, from the second epoch on", "plain", "resident", "images/s")
    show("until a run can begin, cached instead of live", "live", "cached", "s")
    show("until a run can begin, live instead of filling the cache", "filling", "live", "s")
    show("an epoch image by image on the fly (live) instead of in batches (plain)", "plain", "live", "s")
    print(f"target of {TARGET:.0f}x for images ready: {'met' if ratio >= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
