"""One test image of an object, chosen by a rule, with what every strategy made of it along the stream.

Anomaly maps of different strategies have different units. So that one colour scale serves all panels of
an object, a map is shown as (value - usual) / (threshold - usual), where ``usual`` is the median pixel of
the object's normal test images and ``threshold`` the image threshold, both right after the strategy had
learnt the object: 0 is what normal surface got then, 1 what was called defective then. Later maps keep
these two numbers, so that what drifts is seen to drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

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
ROUNDING = 5e-3  # float16 keeps 11 bits: a pooled score may differ by 0.05 %


@dataclass(frozen=True)
class Panel:
    """One anomaly map, scaled as described above, with its image score and threshold in the map's unit.

    ``auroc`` [0, 1] is that of all the object's test images after the same experience.
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
    """The first seed of a group that has kept every map of the object that a figure shows."""
    for run in group.runs:
        if object_name in run.objects and all(
            maps_path(run.path, t, object_name).is_file() for t in shown_steps(run, object_name)
        ):
            return run
    return None


def shown_steps(run: Run, object_name: str) -> list[int]:
    """Experiences from the one that introduced the object to the last: all, or six evenly spread."""
    first = introduced(run, object_name)
    last = len(run.experiences) - 1
    count = min(MAX_STEPS, last - first + 1)
    return [int(t) for t in np.round(np.linspace(first, last, count))]


def introduced(run: Run, object_name: str) -> int:
    """The experience that introduced an object."""
    return next(t for t, objects in enumerate(run.experiences) if object_name in objects)


def make_example(groups: Sequence[Group], object_name: str) -> Example:
    """The example of an object for groups on the same data.

    Raises InputError when the images are not where they were or a group has no maps of the object, RunError
    when its maps are damaged or not those of its scores; what is wrong with maps names the command to run.
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
        raise RunError(f"{chosen[0][1].path}: {image[:200]} is no image of {dataset.root}")
    size = len(lines[0].panels[0].map)
    return Example(
        object=object_name,
        image=image,
        picture=load_image(sample.image, size, dataset.decoding),
        mask=load_mask(sample, size, dataset.decoding) if dataset.is_masked(sample.object) else None,
        lines=lines,
    )


def choose(scores: Sequence[pd.DataFrame]) -> str:
    """The image that ``RULE`` names; each table has image, label, score of one strategy.

    With several strategies ranks are averaged over them; of an even number of images the lower middle one
    is taken, and of equal ones the first by name.
    """
    ranks: dict[str, float] = {}
    for table in scores:
        defective = table[table["label"] == 1]
        for name, rank in zip(defective["image"], rankdata(defective["score"])):
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
            raise RunError(f"{run.id}: {object_name} has no good or no defective test images to compare")
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
            unit = unit if unit > 0 else 1.0  # maps without contrast: nothing to scale
        panels.append(Panel(t, (shown[0] - usual) / unit, score, threshold, curve.auroc()))
    return Line(group, run, tuple(panels))


def _passing(
    maps: Iterable[tuple[str, np.ndarray]], image: str, shown: list[np.ndarray], normal: set[str]
) -> Iterator[np.ndarray]:
    """The maps of normal images; that of ``image`` goes into ``shown``, as float32, on the way."""
    for name, found in maps:
        if name == image:
            shown.append(found.astype(np.float32))
        if name in normal:
            yield found


def _check(run: Run, experience: int, object_name: str, found: np.ndarray | None, score: float) -> None:
    """Maps kept from an earlier training of the same run directory must not be shown as this one's."""
    again = float("nan") if found is None else float(image_score(found[None], run.score_rule)[0])
    if not abs(again - score) <= ROUNDING * max(abs(score), 1e-3):
        raise RunError(
            f"{maps_path(run.path, experience, object_name)} does not belong to the scores of {run.id}; "
            f"{how_to_keep(run, [object_name])}"
        )
