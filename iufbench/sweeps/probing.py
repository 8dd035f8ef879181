"""Estimates the hours of a sweep from probes of its recipes on this machine (``--dry-run --probe``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from iufbench.bench.probe import Speeds, estimated_hours, probe, total_hours
from iufbench.engine.describe import columns
from iufbench.engine.plan import Plan, prepare
from iufbench.support.progress import Progress
from iufbench.sweeps.runs import PlannedRun


def probe_report(runs: Sequence[PlannedRun], jobs: int, progress: Progress) -> str:
    """Probe each distinct recipe once and report the hours of every run and the total.

    Args:
        runs: The unfinished runs.
        jobs: Runs in parallel.
        progress: Shows what is measured.

    Raises:
        InputError: As for ``iufbench run``.
    """
    plans: dict[str, Plan] = {}
    speeds: dict[tuple[object, ...], Speeds] = {}
    rows, hours = [], []
    for run in runs:
        same = repr(dataclasses.replace(run.request, seed=0))
        if same not in plans:
            plans[same] = prepare(run.request, progress=False)
        plan = dataclasses.replace(plans[same], request=run.request)
        recipe = (plan.card.name, plan.recipe_hash, run.request.device, run.request.threads)
        key = (*recipe, len(plan.experiences) > 1)
        if key not in speeds:
            progress.say(f"probing {plan.card.name}")
            speeds[key] = probe(plan)
            progress.say(f"  {speeds[key]}")
        found = estimated_hours(plan, speeds[key])
        hours.append(found)
        rows.append({"run": run.label, **dataclasses.asdict(found), "total h": found.total})
    total = total_hours(hours, [run.inputs for run in runs])
    lines = [
        columns([{name: _text(value) for name, value in row.items()} for row in rows]),
        f"time        about {total:.2g} h in total by the probe on this machine, {total / jobs:.2g} h with "
        f"{jobs} in parallel if they do not slow each other down (images that several runs share are read "
        "once, unless they are cached already)",
    ]
    return "\n".join(lines)


def _text(value: object) -> object:
    return f"{value:.2g}" if isinstance(value, float) else value
