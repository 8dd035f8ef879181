"""One test image of an object, selected by a rule, with the anomaly maps of every strategy along the stream.

Anomaly maps of different strategies have different units. To share one colour scale, a map is shown as (value
- usual) / (threshold - usual), where ``usual`` is the median pixel of the object's normal test images and
``threshold`` the image threshold, both right after the strategy had learnt the object. Later maps use the
same two numbers, so drift is visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from iufbench.data.images import load_image
from iufbench.data.masks import load_mask
from iufbench.metrics.curve import score_curve
from iufbench.metrics.image import image_score
from iufbench.reporting.groups import Group
from iufbench.reporting.maps import how_to_keep, images_of, maps_path, read_maps, usual_value
from iufbench.reporting.store import Run
from iufbench.support.errors import InputError, RunError

MAX_STEPS = 6
RULE = "of the object's defective test images the one with the median score right after the object was learnt"
ROUNDING = 5e-3  # float16 has 11 significant bits: a pooled score may differ by 0.05 %


@dataclass(frozen=True)
class Panel:
    """One anomaly map, scaled as described above, with its image score and threshold in the map's unit.

    ``auroc`` in [0, 1] is computed over all test images of the object after the same experience.
    """

    experience: int
    map: np.ndarray
    score: float
    threshold: float
    auroc: float

    @property
    def found(self) -> bool:
        return self.score >= self.threshold


@dataclass(frozen=True)
class Line:
    """The panels of one run."""

    group: Group
    run: Run
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Example:
    """``picture`` uint8 [S, S, 3] and ``mask`` bool [S, S] (None without annotation) of ``image``."""

    object: str
    image: str
    picture: np.ndarray
    mask: np.ndarray | None
    lines: tuple[Line, ...]


def run_with_maps(group: Group, object_name: str) -> Run | None:
    """The first seed of a group that has all maps of the object needed for the figure."""
    for run in group.runs:
        if object_name in run.objects and all(
            maps_path(run.path, t, object_name).is_file() for t in shown_steps(run, object_name)
        ):
            return run
    return None


def shown_steps(run: Run, object_name: str) -> list[int]:
    """The experiences shown, from the object's introduction to the last: all, or six evenly spaced."""
    first = introduced(run, object_name)
    last = len(run.experiences) - 1
    count = min(MAX_STEPS, last - first + 1)
    return [int(t) for t in np.round(np.linspace(first, last, count))]


def introduced(run: Run, object_name: str) -> int:
    """The experience that introduced an object."""
    return next(t for t, objects in enumerate(run.experiences) if object_name in objects)


def make_example(groups: Sequence[Group], object_name: str) -> Example:
    """Build the example of an object for groups on the same data.

    Raises:
        InputError: The images are no longer in place, or a group has no maps of the object.
        RunError: Maps are corrupted or do not belong to the run's scores; the message gives a command that
            creates them.
    """
    chosen: list[tuple[Group, Run]] = []
    for group in groups:
        run = run_with_maps(group, object_name)
        if run is None:
            first = group.runs[0]
            raise InputError(
                f"{first.id} has no anomaly maps of {object_name}; {how_to_keep(first, [object_name])}"
            )
        chosen.append((group, run))
    scores = [_scores(run, object_name) for _, run in chosen]
    image = choose(
        [s[s["experience"] == introduced(run, object_name)] for s, (_, run) in zip(scores, chosen)]
    )
    lines = tuple(_line(g, run, s, object_name, image) for s, (g, run) in zip(scores, chosen))
    dataset = images_of(chosen[0][1])
    sample = next((s for s in dataset.samples if s.image == dataset.root / image), None)
    if sample is None:
        raise RunError(f"{chosen[0][1].path}: {image[:200]} is not an image of {dataset.root}")
    size = len(lines[0].panels[0].map)
    return Example(
        object=object_name,
        image=image,
        picture=load_image(sample.image, size, dataset.decoding),
        mask=load_mask(sample, size, dataset.decoding) if dataset.is_masked(sample.object) else None,
        lines=lines,
    )


def choose(scores: Sequence[pd.DataFrame]) -> str:
    """Select the image specified by ``RULE``; each table has image, label and score of one strategy.

    Ranks are averaged over strategies. The lower of two middle images is selected; ties are resolved by name.
    """
    ranks: dict[str, float] = {}
    for table in scores:
        defective = table[table["label"] == 1]
        for name, rank in zip(defective["image"], defective["score"].rank()):
            ranks[name] = ranks.get(name, 0.0) + float(rank)
    order = sorted(ranks, key=lambda name: (ranks[name], name))
    return order[(len(order) - 1) // 2]


def _scores(run: Run, object_name: str) -> pd.DataFrame:
    scores = run.scores()
    scores = scores[scores["object"] == object_name]
    if not (scores["label"] == 1).any():
        raise RunError(f"{run.id}: {object_name} has no defective test image to show")
    return scores


def _line(group: Group, run: Run, scores: pd.DataFrame, object_name: str, image: str) -> Line:
    panels: list[Panel] = []
    usual, unit = 0.0, 1.0
    for t in shown_steps(run, object_name):
        now = scores[scores["experience"] == t]
        labels, values = now["label"].to_numpy(bool), now["score"].to_numpy()
        if labels.all() or not labels.any():
            raise RunError(f"{run.id}: {object_name} has no good or no defective test images")
        curve = score_curve(labels, values)
        threshold = curve.f1_max_threshold()
        shown: list[np.ndarray] = []
        normal = set() if panels else set(now.loc[now["label"] == 0, "image"])
        maps = read_maps(run, t, object_name)
        found = usual_value(_passing(maps, image, shown, normal))
        same = now.loc[now["image"] == image, "score"]
        score = float(same.iloc[0]) if len(same) else float("nan")
        _check(run, t, object_name, shown[0] if shown else None, score)
        if not panels:
            usual = found
            unit = (threshold if threshold > usual else float(values.max())) - usual
            unit = unit if unit > 0 else 1.0  # constant maps
        panels.append(Panel(t, (shown[0] - usual) / unit, score, threshold, curve.auroc()))
    return Line(group, run, tuple(panels))


def _passing(
    maps: Iterable[tuple[str, np.ndarray]], image: str, shown: list[np.ndarray], normal: set[str]
) -> Iterator[np.ndarray]:
    """Yield the maps of normal images; the map of ``image`` is stored in ``shown`` as float32."""
    for name, found in maps:
        if name == image:
            shown.append(found.astype(np.float32))
        if name in normal:
            yield found


def _check(run: Run, experience: int, object_name: str, found: np.ndarray | None, score: float) -> None:
    """Check that maps belong to this run, and not to an earlier training in the same directory."""
    again = float("nan") if found is None else float(image_score(found[None], run.score_rule)[0])
    if not abs(again - score) <= ROUNDING * max(abs(score), 1e-3):
        raise RunError(
            f"{maps_path(run.path, experience, object_name)} does not belong to the scores of {run.id}; "
            f"{how_to_keep(run, [object_name])}"
        )
