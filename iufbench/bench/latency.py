"""Latency of one image after a finished run: decoding, backbone and learner, at batch size 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from iufbench.bench.stages import PHOTO, photographs
from iufbench.bench.timing import take_turns
from iufbench.data.images import load_image
from iufbench.data.samples import Sample
from iufbench.engine.predict import AUTO, Predictor
from iufbench.metrics.image import image_score
from iufbench.reporting.latency import Latency, Point, Times, write_latency
from iufbench.reporting.store import Run
from iufbench.support.energy import energy_counter
from iufbench.support.progress import Progress
from iufbench.support.provenance import environment, now
from iufbench.support.version import __version__

WARM_UP = 10
MOST = 5  # timed checkpoints, evenly spaced, including the first and the last


def measure_latency(
    run: Run,
    progress: Progress,
    device: str = "auto",
    threads: int = 1,
    repeats: int = 50,
    trust_code: bool = False,
) -> Latency:
    """Time one image after several experiences of a run, and store the result in its directory.

    A generated JPEG photograph is decoded, so that the run's data are not needed and runs are comparable.
    Stages are timed in turn, each ``repeats`` times after ``WARM_UP`` calls.

    Args:
        run: A finished run.
        progress: Shows a bar.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads.
        repeats: Timed calls.
        trust_code: Import the run's learner even if it is not an installed one.

    Returns:
        The stored measurement.

    Raises:
        InputError: As for :class:`~iufbench.engine.predict.Predictor`.
        RunError: As for :class:`~iufbench.engine.predict.Predictor`.
    """
    last = len(run.experiences) - 1
    numbers = sorted({round(n) for n in np.linspace(0, last, min(MOST, last + 1))})
    points, used, joules = [], "", None
    flops: dict[str, int] = {}
    with TemporaryDirectory() as folder, progress.bar("timing", len(numbers), " checkpoints") as bar:
        (photo,) = photographs(Path(folder), 1)
        for number in numbers:
            predictor = _predictor(run, device, number, trust_code)
            torch.set_num_threads(threads)  # after the predictor, which sets those of the run
            used = str(predictor.strategy.device)
            calls = stages(predictor, photo)
            synchronise = _synchronise(used)
            read, meaning = energy_counter(used)
            before = read() if read else 0.0
            timings = take_turns(calls, repeats, synchronise, WARM_UP)
            if read and number == last:
                joules = (read() - before) / (repeats + WARM_UP)
            each = {name: 1000 * np.array(timing.wall) for name, timing in timings.items()}
            found = {name: _times(values) for name, values in each.items()}
            objects = len({o for group in run.experiences[: number + 1] for o in group})
            points.append(Point(objects, **found, total=_times(np.sum(list(each.values()), axis=0))))
            if number == last:
                flops = {name: _flops(calls[name]) for name in ("backbone", "learner")}
            bar.advance()
    place = environment(used, threads)
    found_here = Latency(
        device=place.processor if used == "cpu" and place.processor else str(place.device or used),
        threads=threads,
        image=f"JPEG {PHOTO[0]}x{PHOTO[1]} to {predictor.plan.recipe.image_size}",
        warm_up=WARM_UP,
        repeats=repeats,
        points=points,
        flops=flops,
        energy_j=joules,
        energy=meaning,
        measured=now(),
        iufbench=__version__,
    )
    write_latency(run.path, found_here)
    return found_here


def stages(predictor: Predictor, photo: Path) -> dict[str, Callable[[], object]]:
    """The stages of one image: ``decode``, ``backbone``, and ``learner``, which returns the score."""
    plan, inputs, strategy = predictor.plan, predictor.inputs, predictor.strategy
    size, how = plan.recipe.image_size, plan.dataset.decoding
    pixels = torch.from_numpy(np.array(load_image(photo, size, how)[None])).permute(0, 3, 1, 2)
    number = 0 if plan.learner.uses.object_id_at_test else -1
    data = inputs.load([Sample(photo, "", "test", 0)], [number])
    precision = inputs.precision
    strategy.is_training = False
    strategy.model.eval()

    def decode() -> object:
        return load_image(photo, size, how)

    def backbone() -> object:
        return inputs.shape.pack(inputs.backbone.encode(pixels))[0].to(precision)

    @torch.no_grad()
    def learner() -> float:
        strategy.mbatch = data.batch(torch.tensor([0])).to(strategy.device)
        strategy.mb_output = strategy.forward()
        maps = strategy.anomaly_maps().float().cpu().numpy()
        return float(image_score(maps, rule=plan.recipe.score)[0])

    return {"decode": decode, "backbone": backbone, "learner": learner}


def _predictor(run: Run, device: str, number: int, trust_code: bool) -> Predictor:
    needs_object = run.record.strategy.uses.get("object_id_at_test")
    return Predictor(run, run.objects[0] if needs_object else AUTO, device, number, trust_code)


def _synchronise(device: str) -> Callable[[], None] | None:
    return torch.cuda.synchronize if device.startswith("cuda") else None


def _times(milliseconds: np.ndarray) -> Times:
    return Times(float(np.median(milliseconds)), float(np.quantile(milliseconds, 0.95)))


def _flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
