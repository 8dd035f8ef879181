"""Fills the caches of decoded images and features before runs that share them start in parallel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from iufbench.cards.request import Request
from iufbench.support.errors import InputError, RunError
from iufbench.support.progress import Progress
from iufbench.sweeps.runs import PlannedRun


def prepare_inputs(
    runs: Sequence[PlannedRun],
    progress: Progress,
    fill: Callable[[Request, Progress], None] | None = None,
) -> int:
    """Fill the caches for inputs that two or more runs share.

    A failure is only a warning here: each of the runs will report it as its own failure.

    Args:
        runs: The runs to be executed.
        progress: Shows the progress.
        fill: Used instead of ``fill_caches``.

    Returns:
        The number of shared inputs.
    """
    counts = Counter(run.inputs for run in runs if run.inputs)
    first = {run.inputs: run for run in reversed(runs)}
    shared = [first[inputs] for inputs, count in counts.items() if count > 1]
    for number, run in enumerate(shared, start=1):
        progress.say(f"inputs {number}/{len(shared)}: {run.kind[0]}, shared by {counts[run.inputs]} runs")
        try:
            (fill or fill_caches)(run.request, progress)
        except (InputError, RunError) as error:
            progress.say(f"warning: {error}")
    return len(shared)


def fill_caches(request: Request, progress: Progress) -> None:
    """Decode and encode all images of a run into the caches, unless they are there.

    Each image is encoded by a single thread, so features do not depend on the number of threads; as many
    images are encoded in parallel as this machine has cores.
    """
    import torch

    from iufbench.data.survey import surveyed
    from iufbench.engine.assembly import frozen_inputs
    from iufbench.engine.plan import prepare
    from iufbench.support.device import choose_device
    from iufbench.support.folders import cache_folder
    from iufbench.support.processes import cores

    plan = prepare(request, progress=False)
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        dataset = surveyed(plan.dataset)
        inputs = frozen_inputs(plan, choose_device(request.device), dataset)
        inputs.use_cache(cache_folder(), dataset, progress)
    finally:
        torch.set_num_threads(before)
