"""Metrics of an object that have no value on its test images, and why."""

from __future__ import annotations

from collections.abc import Iterable

from iufbench.data.samples import DataSet


def undefined_line(name: str, level: str, reason: str = "") -> str:
    """``nut: no good test images: image AUROC is undefined; image ACC and FM stay empty``."""
    why = f"{reason}: " if reason else ""
    return f"{name}: {why}{level} AUROC is undefined; {level} ACC and FM stay empty"


def undefined_lines(dataset: DataSet, objects: Iterable[str]) -> list[str]:
    """One line per object and level ("image", "pixel") whose AUROC cannot have a value.

    The pixel level counts only for a data set with masks. A run stores these lines before it trains, and
    ``reporting.undefined`` finds the reason of an empty cell among them.
    """
    lines = []
    for name in objects:
        labels = {s.label for s in dataset.select("test", (name,))}
        kind = {frozenset({0}): "defective", frozenset({1}): "good"}.get(frozenset(labels))
        reason = f"no {kind} test images" if kind else ""
        if reason:
            lines.append(undefined_line(name, "image", reason))
        if dataset.has_masks and labels == {0}:
            lines.append(undefined_line(name, "pixel", reason))
        elif dataset.has_masks and not dataset.is_masked(name):
            lines.append(undefined_line(name, "pixel", "no masks"))
    return lines
