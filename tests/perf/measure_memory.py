"""Peak memory of judging MVTec AD's whole test set beyond the maps of one object (run this file).

1,725 maps of 224x224 in 15 objects with the published numbers of images go through the metrics as a run
sends them: one object after the other, its maps collected in batches of 32. The maps are noise with an
offset inside the masks: a hard case, since almost every pixel has a score of its own. No image is read.
"""

from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import torch

from iufbench.data.masks import PackedMasks
from iufbench.evaluation.objects import ObjectEvaluation, ObjectTest

FACTS = Path(__file__).parents[1] / "data" / "facts" / "dataset_facts.json"
LIMIT_GB = 1.5


class Peak:
    """The largest resident set of this process in bytes, sampled every 2 ms."""

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._done.wait(0.002):
            self.bytes = max(self.bytes, process.memory_info().rss)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def truth(
    name: str, good: int, defective: int, size: int, share: float, rng: np.random.Generator
) -> ObjectTest:
    """Labels and masks: one square a defective image, ``share`` of the image large."""
    labels = np.arange(good + defective) >= good
    masks = np.zeros((labels.size, size, size), bool)
    side = round(size * share**0.5)
    for i in np.flatnonzero(labels):
        y, x = rng.integers(0, size - side + 1, 2)
        masks[i, y : y + side, x : x + side] = True
    return ObjectTest(name, labels, PackedMasks.of(masks), [f"{i:03d}.png" for i in range(labels.size)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224, help="map size in pixels")
    parser.add_argument(
        "--share", type=float, default=0.05, help="share of a defective image that is defective"
    )
    given = parser.parse_args()
    counts = json.loads(FACTS.read_text())["mvtec_ad"]["classes"]
    largest = max(c["test_good"] + c["test_defective"] for c in counts.values())
    maps_of_one = largest * given.size**2 * np.dtype(np.float32).itemsize
    rng = np.random.default_rng(0)
    tests = [
        truth(name, c["test_good"], c["test_defective"], given.size, given.share, rng)
        for name, c in counts.items()
    ]
    masks = sum(len(t.labels) * given.size**2 for t in tests)
    evaluation = ObjectEvaluation(tests)
    evaluation.start(0, len(tests))
    before = psutil.Process().memory_info().rss
    with Peak() as peak:
        for number, test in enumerate(tests):
            evaluation.maps.before_eval_exp(None)
            for part in np.array_split(test.masks, -(-len(test.masks) // 32)):
                noise = rng.normal(size=part.shape).astype(np.float32) + 2 * part
                maps = torch.from_numpy(noise)
                evaluation.maps.after_eval_iteration(
                    SimpleNamespace(anomaly_maps=lambda maps=maps: maps.clone())
                )
            evaluation.judge(number)
    rows = evaluation.result()
    print(
        f"{len(tests)} objects, {len(rows.scores)} maps of {given.size}x{given.size}, at most {largest} each"
    )
    print(f"maps of the largest object: {maps_of_one / 1e9:.3f} GB; all masks: {masks / 1e9:.3f} GB")
    print(f"before: {before / 1e9:.3f} GB resident (with the masks); peak: {peak.bytes / 1e9:.3f} GB")
    beyond = peak.bytes - maps_of_one
    print(
        f"peak above the maps of one object, everything counted: {beyond / 1e9:.3f} GB (limit {LIMIT_GB} GB)"
    )
    print(f"of that, rise during the evaluation: {(beyond - before) / 1e9:.3f} GB")
    if beyond > LIMIT_GB * 1e9:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
