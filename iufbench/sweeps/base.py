"""Shares one trained base experience among runs that have it in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iufbench.engine.plan import Plan
from iufbench.engine.recording import begun_record
from iufbench.reporting.record import (
    INFO,
    PER_EXPERIENCE,
    RunRecord,
    SharedBase,
    read_record,
    write_record,
)
from iufbench.reporting.rundir import (
    CALIBRATION,
    CALIBRATION_COLUMNS,
    METRIC_COLUMNS,
    METRICS,
    ROUTED,
    SCORE_COLUMNS,
    SCORES,
    TRAIN_LOG,
    claimed,
    read_rows,
)
from iufbench.support.errors import RunError
from iufbench.support.files import write_csv
from iufbench.support.progress import Progress
from iufbench.support.provenance import Environment, environment
from iufbench.support.version import __version__


def has_base(run: Path) -> bool:
    """Whether the base experience of a run is finished and its checkpoint exists."""
    from iufbench.engine.checkpoint import is_finished

    return (run / INFO).is_file() and is_finished(run, 0)


def adopt_base(plan: Plan, donors: Sequence[Path], progress: Progress) -> Path | None:
    """Start a run from the finished base experience of another run, unless it has already begun.

    Donors of another version, device or number of threads are skipped because their last bits may differ;
    so are donors whose results have been modified. The copied files are those the run would have written
    itself, so it continues like a run that was interrupted after its base experience.

    Args:
        plan: The run.
        donors: Run directories with the same base experience (``runs.base_key``).
        progress: Reports what is copied or skipped.

    Returns:
        The run directory of the donor; None if nothing was copied.
    """
    from iufbench.engine.checkpoint import check_records, copy_checkpoint, remove_state, trained_experiences

    if (plan.path / INFO).is_file() and trained_experiences(plan.path):
        return None
    here = _environment(plan)
    donor = None
    for path in donors:
        if has_base(path) and _made_in(path) == here:
            try:
                check_records(path)
            except RunError as error:
                progress.say(f"base experience not reused: {error}")
                continue
            donor = path
            break
    if donor is None:
        return None
    record = read_record(donor)
    with claimed(plan.path):
        (plan.path / INFO).unlink(missing_ok=True)
        remove_state(plan.path)
        for name, columns in ((METRICS, METRIC_COLUMNS), (SCORES, SCORE_COLUMNS), (TRAIN_LOG, None)):
            _copy_base_rows(donor / name, plan.path / name, columns)
        if plan.rule is not None:
            _copy_base_rows(donor / CALIBRATION, plan.path / CALIBRATION, CALIBRATION_COLUMNS)
        copy_checkpoint(donor, plan.path, 0)
        # Written last: if run.json exists, everything else does.
        write_record(plan.path, _after_base(plan, record))
    progress.say(f"base experience reused from {record.id}")
    return donor


def _environment(plan: Plan) -> tuple[str | None, Environment]:
    """Version, packages, device and threads that the plan's run would record."""
    import torch

    from iufbench.engine.assembly import set_threads
    from iufbench.support.device import choose_device

    set_threads(plan)
    device = choose_device(plan.request.device)
    return __version__, environment(str(device), torch.get_num_threads())


def _made_in(run: Path) -> tuple[str | None, Environment]:
    record = read_record(run)
    return record.iufbench, record.environment


def _copy_base_rows(source: Path, target: Path, columns: Sequence[str] | None) -> None:
    rows = [row for row in read_rows(source, columns, optional=(ROUTED,)) if row["experience"] == "0"]
    if not rows:
        raise RunError(f"{source} has no row of experience 0")
    # Loss terms that only increments log have a column that is empty in the base.
    names = [n for n in rows[0] if columns is not None or any(row[n] for row in rows)]
    write_csv(target, names, [[row[name] for name in names] for row in rows])


def _after_base(plan: Plan, donor: RunRecord) -> RunRecord:
    """``run.json`` of a run that continues after a base experience on which it spent no time itself."""
    costs = replace(donor.costs, **{name: getattr(donor.costs, name)[:1] for name in PER_EXPERIENCE})
    return begun_record(plan, donor, costs, base=SharedBase(donor.id, donor.environment))
