"""Paired comparison of two strategies over the seeds they share."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iufbench.metrics.statistics import Spread
from iufbench.metrics.statistics import compare as compare_values
from iufbench.metrics.summaries import DEFINITIONS
from iufbench.reporting.against_frozen import against_frozen
from iufbench.reporting.collect import collect
from iufbench.reporting.groups import Group, group_runs
from iufbench.reporting.store import LEVELS, Run
from iufbench.reporting.tables.build import warn_on_stderr
from iufbench.reporting.tables.render import MINUS
from iufbench.reporting.tables.results import METRIC_TITLES, definitions
from iufbench.reporting.tables.table import Cell, Column, Row, Table, measured
from iufbench.support.errors import InputError


def find_group(groups: Sequence[Group], name: str) -> Group:
    """Find the group of a strategy name, a run id (with or without its seed) or a run directory.

    Raises InputError with suggestions if there is none, or more than one.
    """
    places = [(g.runs[0].id.rpartition("/seed")[0], g) for g in groups]
    found = [
        group
        for place, group in places
        if name in (place, *(run.id for run in group.runs))
        or any(
            Path(name).resolve() in (run.path.resolve(), *run.path.resolve().parents[:1])
            for run in group.runs
        )
    ]
    found = found or [group for place, group in places if name in place.split("/")]
    if len(found) == 1:
        return found[0]
    if found:
        alike = len({place for place, g in places if g in found}) < len(found)
        options = ", ".join(g.runs[0].id if alike else g.runs[0].id.rpartition("/seed")[0] for g in found)
        raise InputError(f"{name!r} fits several: {options}; give one of these")
    known = [part for place, _ in places for part in (place, *place.split("/"))]
    close = difflib.get_close_matches(name, known, 3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see: iufbench list runs"
    raise InputError(f"no run {name!r}; {hint}")


def compare_groups(first: Group, second: Group, metric: str = "auroc") -> Table:
    """Compare all continual summaries of two groups over their common seeds, in percent.

    The difference is first minus second: mean, 95 % bootstrap interval of the mean, effect size d_z,
    sign-flip p-value and the individual values.

    Raises:
        InputError: The groups differ in data or protocol, share no seed, or lack the metric.
    """
    for what, read in SAME:
        a, b = (read(group.runs[0]) for group in (first, second))
        unknown = None in (a, b) and (first.record.external or second.record.external)
        if a != b and not unknown:
            raise InputError(
                f"{first.ids} and {second.ids} differ in {what}: {a} and {b}; they are not comparable"
            )
    if not any(metric in group.runs[0].names(level) for group in (first, second) for level in LEVELS):
        first.runs[0].matrix("image", metric)  # raises, with a suggestion
    rows, shown, common = [], [], 0
    for level in LEVELS:
        for summary in DEFINITIONS:
            a, b = (_by_seed(group, level, metric, summary) for group in (first, second))
            result = compare_values(a, b)
            if not a or not b or not any(np.isfinite(list(a.values()) + list(b.values()))):
                continue
            common = len(result.seeds)
            if not common:
                raise InputError(
                    f"no common seed: {first.ids} and {second.ids}; "
                    "run both with the same seeds to compare them"
                )
            cells = [measured([values[s] for s in result.seeds], 100) for values in (a, b)]
            difference = measured(result.differences, 100)
            cells.append(Cell(difference.value, difference.sd, difference.raw, signed=True))
            cells.append(Cell(text=_interval(result.spread)))
            cells += [_number(result.effect), _number(result.p_value, 3)]
            cells.append(Cell(text=_signed(" ".join(f"{100 * d:+.1f}" for d in result.differences))))
            shown.append(summary)
            rows.append(Row((level, DEFINITIONS[summary].title), tuple(cells)))
    if not rows:
        raise InputError(f"{first.ids} and {second.ids} have no {metric} summary that both can give")
    titles = [_title(first, second), _title(second, first)]
    columns = [*titles, "difference", "95 % interval", "effect d_z", "p", "differences by seed"]
    info = first.record
    return Table(
        name="comparison",
        title=f"{titles[0]} against {titles[1]}: {first.dataset_title}, {info.protocol.label}",
        caption=(
            f"{METRIC_TITLES.get(metric, metric)} in percent over {common} common seeds: mean ± sample "
            "standard deviation (number of seeds). Difference: first minus second, seed by seed. Interval: "
            "percentile bootstrap of the mean difference. d_z: mean over standard deviation of the "
            "differences. p: two-sided sign-flip permutation test, which with these seeds cannot be below "
            f"{2 / 2**common:.3g}; it is not corrected for multiple comparisons."
        ),
        definitions=definitions(dict.fromkeys(shown)),
        label_columns=("Level", "Summary"),
        columns=tuple(map(Column, columns)),
        rows=tuple(rows),
        footnotes=tuple(("", _footnote(title, g)) for title, g in zip(titles, (first, second))),
        synthetic=info.dataset.synthetic,
    )


def _footnote(title: str, group: Group) -> str:
    """The runs of one side, how they were scored, and whether it is better than ``frozen`` if that was run
    under the same conditions.
    """
    compared = ((level, against_frozen(group, level)) for level in LEVELS)
    verdicts = [f"{level} level: {found.text}" for level, found in compared if found]
    return ". ".join([f"{title}: runs {group.ids}, {group.scoring}", *verdicts])


SAME: tuple[tuple[str, Callable[[Run], Any]], ...] = (
    ("data set", lambda run: run.record.dataset.name),
    ("protocol", lambda run: run.record.protocol.id),
    ("objects", lambda run: ", ".join(sorted(run.objects))),
    ("data fingerprint", lambda run: run.record.dataset.fingerprint),
    ("EXIF orientation", lambda run: run.record.dataset.orientation),
    ("version of the scores", lambda run: run.record.scores_version),
    ("map size", lambda run: run.record.map_size),
)


def _by_seed(group: Group, level: str, metric: str, summary: str) -> dict[int, float]:
    values = group.values(level, metric, summary)
    return {run.seed: float(v) for run, v in zip(group.runs, values)}


def _interval(found: Spread) -> str:
    return "" if np.isnan(found.low) else _signed(f"{100 * found.low:+.1f} to {100 * found.high:+.1f}")


def _signed(text: str) -> str:
    """Format numbers as elsewhere: a real minus sign, no sign on zero."""
    parts = (p.lstrip("+-") if p.lstrip("+-") == "0.0" else p.replace("-", MINUS) for p in text.split(" "))
    return " ".join(parts)


def _number(value: float, decimals: int = 2) -> Cell:
    return Cell() if np.isnan(value) else Cell(value, decimals=decimals)


def _title(group: Group, other: Group) -> str:
    return group.title if group.title != other.title else f"{group.title} {group.preset} {group.recipe_hash}"


def compare(
    results_dir: Path | str,
    first: str,
    second: str,
    metric: str = "auroc",
    strict: bool = False,
    warn: Callable[[str], None] = warn_on_stderr,
) -> Table:
    """Compare two groups of runs.

    Args:
        results_dir: Results folder.
        first: Name of a group, as for :func:`find_group`.
        second: The other one.
        metric: A metric of ``metrics.csv``.
        strict: Raise RunError if any run of the folder is corrupted or inconsistent.
        warn: Called with each warning.

    Returns:
        A table to render.

    Raises:
        InputError: A name is unknown or ambiguous, or the groups are not comparable.
        RunError: With ``strict``, a run is corrupted or inconsistent.
    """
    collection = collect(results_dir, strict)
    for line in collection.warnings():
        warn(line)
    groups = group_runs(collection.runs)
    return compare_groups(find_group(groups, first), find_group(groups, second), metric)
