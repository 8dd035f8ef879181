"""Pictures for loggers that support images: the forgetting matrix, and anomaly maps beside their images."""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

from typing import Any

import numpy as np
import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue, TensorImage

from iufbench.data.decoding import AS_SHOWN
from iufbench.data.images import load_image
from iufbench.evaluation.anomaly import AnomalyMetrics, ForgettingMatrix, metric_value


class Picture(TensorImage):
    """An RGB picture, uint8 [H, W, 3]: shown by TensorBoard and W&B, skipped by text loggers."""

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))))

    def __array__(self, *arguments: Any, **keywords: Any) -> np.ndarray:
        return self.image.permute(1, 2, 0).numpy()


class MatrixPicture(PluginMetric):
    """R[experience, object] of one metric as a heat map, after every evaluation."""

    def __init__(self, matrix: ForgettingMatrix, level: str = "image", metric: str = "auroc") -> None:
        super().__init__()
        self.matrix, self.level, self.metric = matrix, level, metric

    def reset(self) -> None:
        pass

    def result(self) -> Picture | None:
        """The matrix so far; None before anything was evaluated."""
        found = self.matrix.result().get(f"{self.level}_{self.metric}")
        return None if found is None else Picture(_drawn(found, self.matrix.objects))

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        picture = self.result()
        name = f"{self.level}_{self.metric}_matrix"
        return [] if picture is None else [metric_value(self, strategy, name, picture)]

    def __str__(self) -> str:
        return "MatrixPicture"


class HeatMaps(PluginMetric):
    """For every object, the highest-scoring defective and normal images with their masks and maps."""

    def __init__(self, values: AnomalyMetrics) -> None:
        super().__init__()
        self.values = values

    def reset(self) -> None:
        pass

    def result(self) -> Picture | None:
        """The picture of the most recently evaluated object; None if there is none."""
        if self.values.last is None:
            return None
        truth, maps, scores = self.values.last
        chosen = [
            max(group, key=lambda i: scores[i])
            for group in (np.flatnonzero(truth.labels), np.flatnonzero(~truth.labels))
            if len(group)
        ]
        masks = np.zeros(maps.shape, dtype=bool) if truth.masks is None else truth.masks.unpacked()
        low, high = float(maps.min()), float(maps.max())
        rows = []
        for i in chosen:
            shade = (maps[i] - low) / max(high - low, 1e-12)
            mask = masks[i]
            parts = [np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), _coloured(shade)]
            if truth.root is not None:
                parts.insert(
                    0, load_image(truth.root / truth.names[i], len(maps[i]), truth.decoding or AS_SHOWN)
                )
            rows.append(np.concatenate(parts, axis=1))
        return Picture(np.concatenate(rows))

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        picture = self.result()
        if picture is None:
            return []
        truth = strategy.experience.truth
        return [metric_value(self, strategy, "heat_maps", picture, truth.object)]

    def __str__(self) -> str:
        return "HeatMaps"


def _coloured(shade: np.ndarray) -> np.ndarray:
    """Colour-map values in [0, 1], [H, W], to uint8 [H, W, 3]."""
    from matplotlib import colormaps

    return (colormaps["viridis"](shade)[..., :3] * 255).round().astype(np.uint8)


def _drawn(R: np.ndarray, objects: list[str]) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 0.6 * len(objects), 1.5 + 0.4 * len(R)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(R, vmin=0.5, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(objects)), objects, rotation=45, ha="right")
    axes.set_yticks(range(len(R)))
    axes.set_ylabel("after experience")
    for (t, o), value in np.ndenumerate(R):
        if not np.isnan(value):
            axes.text(o, t, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
