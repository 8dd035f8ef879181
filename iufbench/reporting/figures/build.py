"""All figures of a results folder and of one run: pure functions of runs and published numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from iufbench.reporting.collect import collect
from iufbench.reporting.figures.alarms import alarm_figure, can_drift
from iufbench.reporting.figures.bars import cost_figure, forgetting_figure, latency_figure
from iufbench.reporting.figures.budgets import budget_figure, swept
from iufbench.reporting.figures.curves import curve_figure, paper_figure, stream_figure
from iufbench.reporting.figures.drawing import save, styles
from iufbench.reporting.figures.matrix import matrix_figure
from iufbench.reporting.figures.plane import plane_figure
from iufbench.reporting.figures.profiles import profile_figure
from iufbench.reporting.figures.qualitative import qualitative_figures
from iufbench.reporting.figures.routing import routing_figure
from iufbench.reporting.groups import Group, group_runs
from iufbench.reporting.literature import published
from iufbench.reporting.maps import how_to_keep
from iufbench.reporting.routing import routes
from iufbench.reporting.store import LEVELS, load_run
from iufbench.reporting.tables.build import warn_on_stderr
from iufbench.reporting.tables.details import timed_on
from iufbench.support.errors import InputError, RunError
from iufbench.support.fields import suggest

__all__ = [
    "curve_figure",
    "matrix_figure",
    "paper_figure",
    "write_figures",
    "write_qualitative",
    "write_run_figures",
]


def write_run_figures(run_path: Path | str) -> list[Path]:
    """Write the figures of a run into its directory: ``matrix_image``, ``matrix_pixel`` and ``curve`` (PNG
    and PDF), and ``routing`` if the strategy selects memories.

    Levels without metrics have no figure. Raises RunError if the run is corrupted.
    """
    run = load_run(run_path)
    levels = [level for level in LEVELS if "auroc" in run.names(level)]
    paths = []
    for level in levels:
        paths += save(matrix_figure(run, level), run.path / f"matrix_{level}")
    if levels:
        paths += save(stream_figure(group_runs([run]), published(), levels), run.path / "curve")
    if routes(run):
        paths += save(routing_figure(run), run.path / "routing")
    return paths


def write_figures(
    results_dir: Path | str,
    out_dir: Path | str,
    strict: bool = False,
    warn: Callable[[str], None] = warn_on_stderr,
    matrices: bool = False,
    highlight: Sequence[str] | None = None,
) -> list[Path]:
    """Write all figures of the complete runs.

    ``figure1_mvtec`` and ``figure2_visa`` correspond to the paper's figures, if there are runs on real data.
    For every data set and protocol there are ``curves_``, ``forgetting_`` and, with several strategies or
    recipes, ``costs_`` and ``learning_`` figures; ``alarms_`` of runs with thresholds; and ``qualitative_``
    figures of objects with saved anomaly maps. Corrupted and incomplete runs are handled as by
    ``write_tables``.

    Args:
        results_dir: Results folder.
        out_dir: Output folder.
        strict: Raise RunError if a run is corrupted or inconsistent.
        warn: Called with each warning.
        matrices: Add a ``matrix_`` of the first seed of every group.
        highlight: Strategies that curves show in colour.

    Returns:
        The files written.

    Raises:
        InputError: There is no complete run, or a highlighted strategy was not run.
        RunError: With ``strict``, a run is corrupted or inconsistent.
    """
    collection = collect(results_dir, strict)
    for line in collection.warnings():
        warn(line)
    groups, out, numbers = group_runs(collection.runs), Path(out_dir), published()
    look = styles(groups)
    unknown = set(highlight or ()) - {g.strategy for g in groups}
    if unknown:
        name = min(unknown)
        raise InputError(f"--highlight: no run of '{name}'{suggest(name, {g.strategy for g in groups})}")
    paths: list[Path] = []
    titles = list(dict.fromkeys(title for title, _ in numbers.protocols.values()))
    for number, title in enumerate(titles, start=1):
        protocols = {p for p, (dataset, _) in numbers.protocols.items() if dataset == title}
        members = [g for g in groups if g.protocol in protocols and not g.record.dataset.synthetic]
        if members:
            family = members[0].protocol.partition("_")[0]
            paths += save(paper_figure(members, numbers, title, look), out / f"figure{number}_{family}")
    for (dataset, protocol), members in _streams(groups).items():
        levels = [level for level in LEVELS if any("auroc" in g.runs[0].names(level) for g in members)]
        stem = f"{dataset}_{protocol}"
        if levels:
            paths += save(
                stream_figure(members, numbers, levels, look, highlight or ()), out / f"curves_{stem}"
            )
            if len(members) > 1 and not all(g.joint for g in members):
                paths += save(plane_figure(members, numbers, levels, look), out / f"learning_{stem}")
        if can_drift(members):
            paths += save(alarm_figure(members, numbers, look), out / f"alarms_{stem}")
        for level in levels:
            if any(not g.joint and "auroc" in g.runs[0].names(level) for g in members):
                figure = forgetting_figure(members, numbers, level, look)
                paths += save(figure, out / f"forgetting_{stem}_{level}")
            if swept(members):
                paths += save(budget_figure(members, numbers, level, look), out / f"budgets_{stem}_{level}")
            if len(members) > 1:
                paths += save(cost_figure(members, numbers, level, look), out / f"costs_{stem}_{level}")
                paths += save(profile_figure(members, numbers, level, look), out / f"profiles_{stem}_{level}")
            if timed_on(members):
                paths += save(latency_figure(members, numbers, level, look), out / f"latency_{stem}_{level}")
        for group in members:
            for level in levels if matrices else ():
                heat_map = _matrix(group, level)
                if heat_map is not None:
                    name = group.runs[0].id.replace("/", "_")
                    paths += save(heat_map, out / f"matrix_{name}_{level}")
            if routes(group.runs[0]):
                name = group.runs[0].id.replace("/", "_")
                paths += save(routing_figure(group.runs[0]), out / f"routing_{name}")
    for wanted in qualitative_figures(groups):
        try:
            paths += save(wanted.figure(numbers), out / wanted.stem)
        except (InputError, RunError) as error:
            warn(f"no {wanted.stem}: {error}")
    return paths


def write_qualitative(
    results_dir: Path | str,
    out_dir: Path | str,
    objects: Sequence[str] | None = None,
    strategies: Sequence[str] | None = None,
    strict: bool = False,
    warn: Callable[[str], None] = warn_on_stderr,
) -> list[Path]:
    """Write ``qualitative_<data set>_<protocol>_<object>`` from saved anomaly maps.

    Args:
        results_dir: Results folder.
        out_dir: Output folder.
        objects: Only these.
        strategies: Only these.
        strict: Raise RunError if a run is corrupted or inconsistent.
        warn: Called with each warning.

    Returns:
        The files written.

    Raises:
        InputError: A name is unknown, or no maps are saved; the message gives the command that saves them.
        RunError: With ``strict``, a run is corrupted or inconsistent.
    """
    collection = collect(results_dir, strict)
    for line in collection.warnings():
        warn(line)
    groups, numbers = group_runs(collection.runs), published()
    paths: list[Path] = []
    found = qualitative_figures(groups, objects, strategies)
    if not found:
        run = collection.runs[0]
        raise InputError(f"no run has saved anomaly maps; {how_to_keep(run)}")
    for wanted in found:
        for group in wanted.missing:
            run = group.runs[0]
            warn(f"{wanted.stem} is without {run.id}; {how_to_keep(run, [wanted.object])}")
        paths += save(wanted.figure(numbers), Path(out_dir) / wanted.stem)
    return paths


def _matrix(group: Group, level: str) -> Figure | None:
    try:
        return matrix_figure(group.runs[0], level)
    except InputError:  # this run was evaluated without this level
        return None


def _streams(groups: list[Group]) -> dict[tuple[str, str], list[Group]]:
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        found.setdefault((group.dataset, group.protocol), []).append(group)
    return found
