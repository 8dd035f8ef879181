"""Scores new images with the last checkpoint of a finished run. The run's data are not needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from iufbench.data.given import given_images
from iufbench.data.resident import UNKNOWN_OBJECT
from iufbench.data.samples import Sample
from iufbench.engine.again import plan_without_data, require_weights
from iufbench.engine.assembly import build_strategy, frozen_inputs, set_threads
from iufbench.engine.checkpoint import checkpoint_path, load_checkpoint
from iufbench.evaluation.objects import MapCollector
from iufbench.metrics.check import require_finite
from iufbench.metrics.image import image_score
from iufbench.reporting.predictions import Prediction, PredictionFolder, require_new
from iufbench.reporting.store import Run, load_run
from iufbench.reporting.thresholds import stored_threshold
from iufbench.streams.streams import sealed_stream
from iufbench.support.device import choose_device
from iufbench.support.errors import InputError, RunError
from iufbench.support.fields import suggest
from iufbench.support.files import PathOrText
from iufbench.support.progress import Progress
from iufbench.support.provenance import now
from iufbench.support.version import __version__

AUTO = "auto"


class Predictor:
    """A strategy in its state at the end of a run, for any number of images.

    The scores are those of ``iufbench evaluate`` for the same images: bit for bit in the same batches, else
    up to the order of summation (relative differences below 1e-5 in float32).
    """

    def __init__(
        self,
        run: Run | PathOrText,
        object: str = AUTO,
        device: str = "auto",
        experience: int | None = None,
        trust_code: bool = False,
        threshold: str | None = None,
    ) -> None:
        """Load the checkpoint.

        Args:
            run: A finished run, or its directory.
            object: The object that all images show. ``auto``: unknown, which a strategy that needs object ids
                at test time cannot handle.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            experience: After which experience, from 0; None: the last.
            trust_code: Import the run's learner even if it is not an installed one.
            threshold: ``frozen`` or ``own``, as for ``reporting.thresholds.stored_threshold``.

        Raises:
            InputError: The learner is not an installed one. The run is not finished, lacks the object, needs
                it and ``object`` is ``auto``, or has no thresholds.
            RunError: The checkpoint is missing or corrupted, or the card or weights have changed.
        """
        run = run if isinstance(run, Run) else load_run(run)
        if not run.complete:
            raise InputError(f"{run.path}: the run is {run.record.status}, not complete; finish it first")
        if object != AUTO and object not in run.objects:
            known = ", ".join(run.objects)
            raise InputError(
                f"--object: {run.id} has not learnt '{object}'{suggest(object, run.objects)} (has: {known})"
            )
        stored_threshold(run.record, "", threshold)
        self.run, self.object, self.threshold = run, object, threshold
        self.plan = plan = plan_without_data(run, device, trust_code)
        if object == AUTO and plan.learner.uses.object_id_at_test:
            raise InputError(
                f"{plan.card.name} needs to know the object of an image: give --object NAME "
                f"(one of {', '.join(run.objects)})"
            )
        self.experience = number = len(run.experiences) - 1 if experience is None else experience
        if not checkpoint_path(run.path, number).is_file():
            raise RunError(f"{checkpoint_path(run.path, number)} is missing: repeat the run or copy it there")
        set_threads(plan)
        self.inputs = frozen_inputs(plan, choose_device(device), plan.dataset)
        require_weights(run, self.inputs.backbone.weights_sha256)
        self._maps = MapCollector()
        self.strategy = build_strategy(plan, self.inputs.backbone, choose_device(device), self._maps)
        load_checkpoint(run.path, number, self.strategy)

    def predictions(self, images: Sequence[Path], progress: Progress | None = None) -> Iterator[Prediction]:
        """Score image files, a batch at a time; memory does not grow with their number.

        Args:
            images: Files.
            progress: Shows a bar; None for silence.

        Yields:
            A prediction per image, in order.

        Raises:
            InputError: An image cannot be decoded; the message names the file.
            RunError: A score is not finite.
        """
        batch, progress = self.plan.recipe.evaluation_batch_size, progress or Progress(-1)
        if self.object == AUTO and self.run.record.thresholds and not self.plan.learner.uses.routing:
            progress.say("unknown object: the threshold is pooled over all objects (--object NAME: its own)")
        with progress.bar("scoring", len(images)) as bar:
            for start in range(0, len(images), batch):
                paths = images[start : start + batch]
                yield from self._scored(paths)
                bar.advance(len(paths))

    def _scored(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        protocol = self.plan.protocol
        known = self.object != AUTO
        number = protocol.products.index(protocol.product_of(self.object)) if known else UNKNOWN_OBJECT
        samples = [Sample(path, self.object, "test", 0) for path in paths]
        data = self.inputs.load(samples, [number] * len(samples))
        if not self.plan.learner.uses.object_id_at_test:
            data = data.without_objects()
        self.strategy.eval(sealed_stream("test", [data]))
        maps, routed = self._maps.take()
        scores = image_score(maps, rule=self.plan.recipe.score)
        require_finite(scores, list(map(str, paths)), self.object)
        names = [self.object if known else ""] * len(paths)
        if routed is not None and not known:
            names = [protocol.products[k] if k >= 0 else "" for k in routed.tolist()]
        for path, name, score, anomaly_map in zip(paths, names, scores, maps):
            limit = stored_threshold(self.run.record, name, self.threshold)
            yield Prediction(path, name, float(score), limit, anomaly_map)

    def about(self) -> dict[str, Any]:
        """The origin of the predictions: run, checkpoint, object, version, time."""
        record = self.run.record
        return {
            "run": record.id,
            "path": str(self.run.path.absolute()),
            "synthetic": record.dataset.synthetic,
            "experience": self.experience,
            "object": self.object,
            "threshold": None if record.thresholds is None else self.threshold or "frozen",
            "device": str(self.strategy.device),
            "iufbench": __version__,
            "made": now(),
        }


def predict(
    run: Run | PathOrText,
    images: PathOrText | Iterable[PathOrText],
    object: str = AUTO,
    out: PathOrText | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    trust_code: bool = False,
    threshold: str | None = None,
) -> Iterator[Prediction]:
    """Score images with the last checkpoint of a run, like ``iufbench predict``.

    Args:
        run: A finished run, or its directory.
        images: Files, folders or patterns.
        object: As for :class:`Predictor`.
        out: A new folder for the rows and overlays (``reporting.predictions.PredictionFolder``); it appears
            once all images have been scored.
        device: As for :class:`Predictor`.
        progress: Shows a bar; None for no output.
        trust_code: As for :class:`Predictor`.
        threshold: As for :class:`Predictor`.

    Yields:
        A prediction per image, in order.

    Raises:
        InputError: As for :class:`Predictor`; an image is missing or corrupted, or ``out`` exists.
        RunError: As for :class:`Predictor`.
    """
    run = run if isinstance(run, Run) else load_run(run)
    if out is not None:
        require_new(Path(out))
    files = given_images(images)
    predictor = Predictor(run, object, device, trust_code=trust_code, threshold=threshold)
    if out is None:
        yield from predictor.predictions(files, progress)
        return
    folder = PredictionFolder(Path(out), run, predictor.plan.dataset.decoding)
    with folder.filling(predictor.about()):
        for prediction in predictor.predictions(files, progress):
            folder.add(prediction)
            yield prediction
