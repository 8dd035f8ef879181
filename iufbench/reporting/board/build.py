"""``iufbench board build``: a static site from many run directories."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iufbench.cards.strategies import FAMILIES
from iufbench.metrics import summaries, values
from iufbench.metrics.aggregate import AGGREGATES
from iufbench.reporting.board.public import has_places, public_run, without_paths
from iufbench.reporting.board.rankings import Borda, Ranking, over_protocols, rankings
from iufbench.reporting.collect import Collection, collect
from iufbench.reporting.groups import group_runs
from iufbench.reporting.html import fill
from iufbench.reporting.literature import published as published_numbers
from iufbench.reporting.record import INFO, write_record
from iufbench.reporting.report import parts
from iufbench.reporting.rundir import LIMITS, RECORDS, SCORES
from iufbench.reporting.store import Run
from iufbench.reporting.tables.build import warn_on_stderr
from iufbench.reporting.tables.render import cell_text
from iufbench.reporting.tables.results import METRIC_TITLES
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import file_sha256, open_file, work_folder, write_bytes, write_json, write_text
from iufbench.support.names import is_link
from iufbench.support.version import SCORES_VERSION, __version__

TITLE = "iufbench: board"
MARK = "board.json"  # what a folder has that may be replaced
PRINTED = ("acc", "acc_final", "fm")  # in papers
SHOWN = ("acc", "acc_final", "fm", "fm_final", "bwt", "new_object")
FURTHER = {
    "train_seconds": (
        "Training (s)",
        "wall time of training in seconds over all experiences, mean over seeds; it depends on the device, "
        "which is stated on the page of a run",
    ),
    "bytes_kept": (
        "Kept (MB)",
        "largest number of bytes that are carried from one experience to the next beside the deployed "
        "network's weights (memories, importances, copies of old weights), in MB, mean over seeds",
    ),
}


def write_board(
    results: Path | str,
    out: Path | str,
    strict: bool = False,
    warn: Callable[[str], None] = warn_on_stderr,
) -> Path:
    """Write the board of all complete runs: ``iufbench board build``.

    The folder appears when it is complete and replaces an older board. Private paths are removed from all
    published content. Corrupted and incomplete runs are handled as by ``write_tables``.

    Args:
        results: Results folder.
        out: Output folder.
        strict: Raise RunError if a run is corrupted or inconsistent.
        warn: Called with each warning.

    Returns:
        The index page.

    Raises:
        InputError: There is no run, or ``out`` exists and is not a board.
        RunError: With ``strict``, a run is corrupted or inconsistent.
    """
    results, out = Path(results), Path(out)
    _check_place(out, results)
    collection = collect(results, strict)
    for line in collection.warnings():
        warn(line)
    try:
        with work_folder(out) as made:
            _write(collection, made / "new", str(results.absolute()))
            _replace(made, out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
    return out / "index.html"


def _check_place(out: Path, results: Path) -> None:
    if out.resolve().is_relative_to((results / "runs").resolve()):
        raise InputError(f"--out {out} is inside {results / 'runs'}, where runs are stored: choose another")
    if os.path.lexists(out) and not (out.is_dir() and ((out / MARK).is_file() or not any(out.iterdir()))):
        raise InputError(f"--out {out} exists and is not a board: remove it, or choose another folder")


def _replace(made: Path, out: Path) -> None:
    try:
        if os.path.lexists(out):
            os.rename(out, made / "old")
        os.rename(made / "new", out)
    except OSError as error:
        if (made / "old").exists() and not os.path.lexists(out):
            os.rename(made / "old", out)
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error


def page_of(run: Run) -> str:
    """The folder of a run below the board; the same in every board."""
    return "runs/" + hashlib.sha256(run.id.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _write(collection: Collection, out: Path, results: str) -> None:
    """Write all pages and files. ``results``: the results folder, which must not appear in any page."""
    runs = [public_run(run) for run in collection.runs]
    groups, published = group_runs(runs), published_numbers()
    found = rankings(groups, published)
    bordas = over_protocols(found)
    hashes = {}
    for run in runs:
        notes = [without_paths(line, [results]) for line in collection.footnotes.get(run.id, ())]
        hashes[run.id] = _write_run(run, notes, out / page_of(run))
    synthetic, external = sum(r.synthetic for r in runs), sum(r.record.external for r in runs)
    details = f"{synthetic} on synthetic data, {external} external"
    index = fill(
        "board",
        title=TITLE,
        version=__version__,
        counts=f"{len(runs)} runs of {len(groups)} combinations of protocol, strategy and recipe ({details})",
        warnings=[without_paths(line, [results]) for line in collection.warnings()],
        filters=_filters(found),
        families=FAMILIES,
        rankings=found,
        bordas=bordas,
        runs=runs,
        pages={run.id: f"{page_of(run)}/index.html" for run in runs},
        hashes={name: _short(digests) for name, digests in hashes.items()},
        published=[
            (
                f"{entry.filters['dataset']}, {entry.filters['protocol']}",
                entry.filters["strategy"],
                entry.filters["level"],
                *(cell_text(entry.cells[parts.SUMMARIES.index(s)], False) for s in PRINTED),
                entry.source,
            )
            for entry in parts.overview(groups, published)
            if entry.kind == "published"
        ],
    )
    write_text(out / "index.html", index)
    write_text(out / "definitions.html", fill("board_definitions", title="Definitions", parts=_definitions()))
    write_json(out / MARK, _as_json(found, bordas, hashes))


def _short(digests: Mapping[str, str]) -> str:
    """A short hash that identifies a run."""
    return (digests.get(SCORES) or next(iter(digests.values())))[:8]


def _filters(found: Sequence[Ranking]) -> dict[str, tuple[str, list[str]]]:
    """Name -> label and options of every filter."""
    places = [place for ranking in found for place in ranking.places]
    choices = {
        "metric": ("metric", [r.metric for r in found]),
        "data": ("data", ["synthetic" if r.synthetic else "real" for r in found]),
        "dataset": ("data set", [r.dataset for r in found]),
        "protocol": ("protocol", [r.protocol for r in found]),
        "family": ("family", sorted((p.group.family for p in places), key=list(FAMILIES).index)),
        "origin": ("origin", [p.origin for p in places]),
    }
    return {name: (label, list(dict.fromkeys(options))) for name, (label, options) in choices.items()}


def _definitions() -> dict[str, list[tuple[str, str, str, bool]]]:
    kinds = {
        "For one object after one experience": values.DEFINITIONS,
        "For a run": summaries.DEFINITIONS,
        "For several runs": AGGREGATES,
    }
    found = {
        title: [
            (d.name, d.title, f"{d.formula}. Used by: {d.used_by}", d.higher_is_better)
            for d in known.values()
        ]
        for title, known in kinds.items()
    }
    costs = [(name, title, text, False) for name, (title, text) in FURTHER.items()]
    return {**found, "Costs": costs}


def _write_run(run: Run, notes: Sequence[str], out: Path) -> dict[str, str]:
    """Write the page of a run and its files, as a run directory; returns the SHA-256 of the result files."""
    digests = {}
    for name in RECORDS:
        source = run.path / name
        if not os.path.lexists(source):
            continue
        if name == SCORES and has_places(run.scores()["image"].unique()):
            notes = [*notes, f"{SCORES} is not published: its image names are paths on a machine"]
            continue
        with open_file(source, LIMITS[name]) as file:
            data = file.read()
        write_bytes(out / name, data)
        digests[name] = hashlib.sha256(data).hexdigest()
    write_record(out, run.record)
    submission, known = run.record.submission, {}
    if submission is not None:
        known = {"submitted scores": submission.scores_sha256, "submitted maps": submission.maps_sha256}
    names = [(level, metric) for level in ("image", "pixel") for metric in run.names(level)]
    page = fill(
        "board_run",
        title=f"{run.record.label}, seed {run.seed}",
        found=parts.provenance(run, notes),
        files={INFO: file_sha256(out / INFO), **digests},
        submitted={name: digest for name, digest in known.items() if digest},
        link=submission.link if submission and submission.link and is_link(submission.link) else None,
        summaries={s: summaries.DEFINITIONS[s].title for s in SHOWN},
        numbers=[(lv, m, METRIC_TITLES.get(m, m), _percent(run.summary(lv, m))) for lv, m in names],
    )
    write_text(out / "index.html", page)
    return digests


def _percent(found: Mapping[str, float]) -> list[float | None]:
    got = [found.get(name, math.nan) for name in SHOWN]
    return [None if math.isnan(value) else 100 * value for value in got]


def _as_json(
    found: Sequence[Ranking], bordas: Sequence[Borda], hashes: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """The board for programs: values in [0, 1], null where there is none."""
    return {
        "format": 1,
        "iufbench": __version__,
        "scores_version": SCORES_VERSION,
        "rankings": [
            {
                "title": ranking.title,
                "synthetic": ranking.synthetic,
                "metric": ranking.metric,
                "places": [
                    {
                        "rank": place.standing.rank,
                        "rank_interval": place.standing.ranks,
                        "strategy": place.label,
                        "external": place.group.record.external,
                        "acc_final": place.standing.mean,
                        "iqm": place.standing.iqm,
                        "probability_of_improvement": place.standing.better,
                        "runs": {run.id: hashes[run.id] for run in place.group.runs},
                    }
                    for place in ranking.places
                ],
            }
            for ranking in found
        ],
        "borda": [
            {
                "synthetic": borda.synthetic,
                "protocols": [ranking.title for ranking in borda.protocols],
                "places": [
                    {"rank": row.rank, "strategy": row.label, "points": row.points} for row in borda.rows
                ],
            }
            for borda in bordas
        ],
    }
