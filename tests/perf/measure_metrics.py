"""Seconds and memory of one pass against scikit-learn plus an AUPRO by sorting (run this file).

150 maps of 224x224, about one pixel in a hundred defective, smooth as real anomaly maps are. Both sides
compute AUROC, AP, F1-max, AUPRO@0.3 and @0.05 of the same input and must agree.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from iufbench.metrics.pixel import pixel_metrics

sys.path.append(str(Path(__file__).parents[1] / "metrics"))
from aupro_oracle import aupro_by_sorting


def inputs(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    masks = np.zeros((n, size, size), bool)
    maps = np.empty(masks.shape, np.float32)
    for i in range(n):
        if i % 2:
            y, x = rng.integers(0, size - 40, 2)
            masks[i, y : y + rng.integers(20, 40), x : x + rng.integers(20, 40)] = True
        noise = ndimage.gaussian_filter(rng.normal(size=(size, size)), 4)
        maps[i] = 10 * noise + ndimage.gaussian_filter(masks[i].astype(float), 3)
    return masks, maps


def reference(masks: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    labels, scores = masks.ravel(), maps.ravel()
    precision, recall, _ = precision_recall_curve(labels, scores)
    return {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
        "f1_max": float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))),
        "aupro_30": aupro_by_sorting(masks, maps, 0.3),
        "aupro_05": aupro_by_sorting(masks, maps, 0.05),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=150)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-ours", action="store_true")
    given = parser.parse_args()
    masks, maps = inputs(given.maps, given.size)
    print(f"{maps.shape}: {masks.mean():.2%} defective, maps {maps.nbytes / 1e6:.0f} MB")
    sides = (
        {"iufbench": pixel_metrics}
        if given.only_ours
        else {"iufbench": pixel_metrics, "reference": reference}
    )
    seconds, values = {}, {}
    for name, function in sides.items():
        for _ in range(given.rounds):  # the better of several rounds, CPU time: other load does not count
            start = time.process_time()
            values[name] = function(masks, maps)
            seconds[name] = min(seconds.get(name, np.inf), time.process_time() - start)
        tracemalloc.start()
        function(masks, maps)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{name}: {seconds[name]:.2f} s CPU, {peak / 1e6:.0f} MB beyond the maps")
    if not given.only_ours:
        ours, theirs = values["iufbench"], values["reference"]
        print(f"ratio {seconds['reference'] / seconds['iufbench']:.1f}")
        print(f"largest difference {max(abs(ours[k] - theirs[k]) for k in ours):.1e}")


if __name__ == "__main__":
    main()
