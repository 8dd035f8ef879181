"""Time and values of iufbench.metrics beside scikit-learn, torchmetrics and anomalib (run this file).

The libraries beside scikit-learn are optional; what is not installed is named and left out. Maps are as in
``measure_metrics``: smooth, one pixel in a hundred defective. CPU seconds, better of ``--rounds`` (set
OMP_NUM_THREADS=1 for one thread). Prints three Markdown tables: seconds, differences, and what becomes of raw
scores that are not in [0, 1].
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from collections.abc import Callable

import numpy as np
from measure_metrics import inputs
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from iufbench.metrics.image import image_metrics
from iufbench.metrics.pixel import pixel_metrics

NAMES = {"auroc": "AUROC", "ap": "AP", "f1_max": "F1-max", "aupro_30": "AUPRO@0.3"}
Metric = Callable[[np.ndarray, np.ndarray], float]


def best_f1(precision: np.ndarray, recall: np.ndarray) -> float:
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))


def scikit_learn() -> dict[str, Metric]:
    def f1_max(masks: np.ndarray, maps: np.ndarray) -> float:
        return best_f1(*precision_recall_curve(masks.ravel(), maps.ravel())[:2])

    return {
        "auroc": lambda masks, maps: float(roc_auc_score(masks.ravel(), maps.ravel())),
        "ap": lambda masks, maps: float(average_precision_score(masks.ravel(), maps.ravel())),
        "f1_max": f1_max,
    }


def torchmetrics() -> dict[str, Metric]:
    import torch
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_average_precision,
        binary_precision_recall_curve,
    )

    torch.set_num_threads(1)

    def of(function: Callable[..., object]) -> Callable[[np.ndarray, np.ndarray], object]:
        return lambda masks, maps: function(
            torch.from_numpy(maps.ravel()), torch.from_numpy(masks.ravel().astype(int))
        )

    def f1_max(masks: np.ndarray, maps: np.ndarray) -> float:
        precision, recall, _ = of(binary_precision_recall_curve)(masks, maps)  # type: ignore[misc]
        return best_f1(precision.double().numpy(), recall.double().numpy())

    return {
        "auroc": lambda masks, maps: float(of(binary_auroc)(masks, maps)),  # type: ignore[arg-type]
        "ap": lambda masks, maps: float(of(binary_average_precision)(masks, maps)),  # type: ignore[arg-type]
        "f1_max": f1_max,
    }


def anomalib() -> dict[str, Metric]:
    import torch

    torch.set_num_threads(1)

    def of(module: str, name: str) -> Metric:
        kind = getattr(importlib.import_module(f"anomalib.metrics.{module}"), name)

        def value(masks: np.ndarray, maps: np.ndarray) -> float:
            metric, flat = kind(), module != "aupro"
            scores, truth = torch.from_numpy(maps), torch.from_numpy(masks.astype(int))
            metric.update(*((scores.ravel(), truth.ravel()) if flat else (scores, truth)))
            return float(metric.compute())

        return value

    return {
        "auroc": of("auroc", "_AUROC"),
        "ap": of("aupr", "_AUPR"),
        "f1_max": of("f1_score", "_F1Max"),
        "aupro_30": of("aupro", "_AUPRO"),
    }


def measure(function: Callable[[], float], rounds: int) -> tuple[float, float]:
    """CPU seconds (better of the rounds) and value."""
    seconds, value = np.inf, np.nan
    for _ in range(rounds):
        start = time.process_time()
        value = function()
        seconds = min(seconds, time.process_time() - start)
    return float(seconds), value


def row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=150)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    masks, maps = inputs(given.maps, given.size)
    maps = (maps - maps.min()) / (maps.max() - maps.min())  # torchmetrics is right in [0, 1] only
    libraries: dict[str, dict[str, Metric]] = {}
    for make in (scikit_learn, torchmetrics, anomalib):
        title = make.__name__.replace("_", "-")
        try:
            functions = make()
            for name in functions:  # imports are not timed
                functions[name](masks[:2], maps[:2])
            libraries[title] = functions
        except ImportError as error:
            print(f"{title} is not installed: {error}")
    ours: dict[str, float] = {}

    def all_of_ours() -> float:
        ours.update(pixel_metrics(masks, maps))
        return ours["auroc"]

    seconds, _ = measure(all_of_ours, given.rounds)
    with_aupimo, _ = measure(lambda: pixel_metrics(masks, maps, aupimo=True)["aupimo"], given.rounds)
    print(f"\n{given.maps} maps of {given.size}x{given.size}, {masks.mean():.2%} defective; CPU seconds\n")
    row("library", *NAMES.values(), "all")
    row("---", *["---:"] * (len(NAMES) + 1))
    row("iufbench.metrics", *[""] * len(NAMES), f"{seconds:.2f} ({with_aupimo:.2f} with AUPIMO)")
    differences = {}
    for title, functions in libraries.items():
        found = {n: measure(lambda f=f: f(masks, maps), given.rounds) for n, f in functions.items()}  # type: ignore[misc]
        differences[title] = {n: abs(value - ours[n]) for n, (_, value) in found.items()}
        cells = [f"{found[n][0]:.2f}" if n in found else "–" for n in NAMES]
        row(title, *cells, f"{sum(s for s, _ in found.values()):.2f}")
    print("\nlargest difference from iufbench.metrics on the same maps in [0, 1]\n")
    row("library", *NAMES.values())
    row("---", *["---:"] * len(NAMES))
    for title, values in differences.items():
        row(title, *(f"{values[n]:.0e}" if n in values else "–" for n in NAMES))
    rng = np.random.default_rng(0)
    labels = np.repeat([False, True], 100)
    raw = (rng.normal(0, 1, 200) + 1.5 * labels).astype(np.float32)
    kinds = {
        "around 0": raw,
        "around 40": raw + np.float32(40),
        "in [0, 1]": (raw - raw.min()) / (raw.max() - raw.min()),
        "rounded to 8 bit": np.round(raw).clip(0, 255).astype(np.float32) / 255,
    }
    print("\nimage AUROC of the same 200 images on other scales\n")
    row("library", *kinds)
    row("---", *["---:"] * len(kinds))
    row("iufbench.metrics", *(f"{image_metrics(labels, s)['auroc']:.4f}" for s in kinds.values()))
    for title, functions in libraries.items():
        row(title, *(f"{functions['auroc'](labels, s):.4f}" for s in kinds.values()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
