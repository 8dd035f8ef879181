"""Models of anomalib 2 (Akcay et al., ICIP 2022; ``pip install iufbench[anomalib]``) as strategies.

A model is named as ``anomalib:Padim``. It sees images instead of frozen features, brings its own backbone,
optimiser and schedule, and is trained by Lightning; this module gives it the images of an experience and
returns its anomaly maps. Nothing protects it against forgetting.
"""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from avalanche.training.utils import trigger_plugins
from torch import Tensor, nn

from iufbench.data.resident import Batches, ResidentData
from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.context import Uses
from iufbench.support.errors import InputError
from iufbench.support.fields import suggest
from iufbench.support.seeding import derive

SHARED = "shared"  # the name of a model that serves all objects
PRECISIONS = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Model:
    """``model``: class name in ``anomalib.models``; ``arguments``: of its constructor, such as
    ``pre_trained: false`` or ``backbone: resnet18``."""

    model: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


class Anomalib(ReconstructionStrategy):
    """One model for all objects, fitted to one experience after another (or to all: ``stream: joint``).

    An experience is one call of Lightning's ``Trainer.fit`` on its normal images, which also serve as the
    model's validation set. Memory models are refitted, since anomalib cannot extend their memories.
    """

    @dataclass(frozen=True)
    class Options:
        anomalib: Model = field(default_factory=Model)

    not_captured: ClassVar[str | None] = "anomalib's models are trained by Lightning"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        if self.context.compile:
            raise InputError("--compile: anomalib's models are trained by Lightning; leave the option out")

    @classmethod
    def guide_size(cls, options: Any, image_size: int) -> int | None:
        return image_size

    def build_network(self) -> nn.Module:
        return nn.ModuleDict({SHARED: self._model()})

    def _model(self) -> nn.Module:
        """A new model; it receives images in 0..1 and normalises them itself."""
        given = self.options.anomalib
        kind = model_class(given.model)
        size = (self.recipe.image_size,) * 2
        try:
            model = kind(
                **given.arguments,
                pre_processor=kind.configure_pre_processor(size),
                post_processor=False,
                evaluator=False,
                visualizer=False,
            )
        except Exception as error:  # wrong arguments, an image size that it refuses, weights out of reach
            raise InputError(
                f"anomalib's {given.model} cannot be created with anomalib.arguments {given.arguments}: "
                f"{_line(error)} (without access to its weights: --set anomalib.arguments.pre_trained=false, "
                "where the model has that argument)"
            ) from error
        self._filled = {name for name, buffer in model.named_buffers() if buffer.numel() == 0}
        return model

    def beside_network(self) -> Any:
        """Also the buffers that a model fills while it is fitted, such as PatchCore's memory."""
        filled = {
            f"{key}.{name}": buffer
            for key, model in self.model.items()
            for name, buffer in model.named_buffers()
            if name in self._filled
        }
        return {**super().beside_network(), "memory": filled}

    # Training ----------------------------------------------------------------------------------------

    def fit_standardisation(self) -> None:
        """Nothing: frozen features are not used."""

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        self.adapt_network()
        self.model.to(self.device)

    def _before_training_exp(self, **kwargs: Any) -> None:
        super()._before_training_exp(**kwargs)
        self.train_epochs = 1  # of this loop: one fit, which has its own epochs

    def training_epoch(self, **kwargs: Any) -> None:
        losses: list[float] = []
        for key, data in self._parts().items():
            losses += self._fit(self.model[key], data)
        self.model.to(self.device)  # Lightning leaves it on the CPU
        self._mean_loss = sum(losses) / len(losses) if losses else None

    def _after_training_epoch(self, **kwargs: Any) -> None:
        row: dict[str, float] = {"images": len(self.experience.resident), "bytes_kept": self.bytes_kept}
        if self._mean_loss is not None:
            row["loss"] = self._mean_loss
        self.training_log.append(row)
        trigger_plugins(self, "after_training_epoch", **kwargs)

    def _parts(self) -> dict[str, ResidentData]:
        """Name of a model -> the images that it is trained on in this experience."""
        return {SHARED: self.experience.resident}

    def _fit(self, model: Any, data: ResidentData) -> list[float]:
        """Train a model on normal images; returns its loss in every iteration, if it has one."""
        losses: list[float] = []

        def after(outputs: Any) -> None:
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            if isinstance(loss, Tensor) and model.trainer.optimizers:
                losses.append(float(loss))
                self.loss = loss.detach()
            trigger_plugins(self, "after_training_iteration")

        if hasattr(model, "_is_fitted"):
            model._is_fitted = torch.zeros_like(model._is_fitted)
        epochs = self.schedule.epochs_of(self.experience.current_experience)
        generator = self.dataloader.generator
        images = _Images(data, self.train_mb_size, generator, lambda batch: setattr(self, "mbatch", batch))
        still = _Images(data, self.train_mb_size)
        try:
            _lightning_fit(
                model, images, still, epochs, self.device, PRECISIONS[self.context.precision], after
            )
        except (ValueError, TypeError, OSError) as error:
            raise InputError(
                f"anomalib's {self.options.anomalib.model} cannot be trained: {_line(error)}"
            ) from error
        return losses

    # Evaluation --------------------------------------------------------------------------------------

    def forward(self) -> Tensor:
        """Anomaly maps [B, H, W], higher is more anomalous."""
        return self._maps(SHARED, self.mbatch.guide)

    def _maps(self, key: str, images: Tensor) -> Tensor:
        model = self.model[key]
        prepared = model.pre_processor(_pixels(images))
        maps = getattr(model.model(prepared), "anomaly_map", None)
        if maps is None:
            raise InputError(
                f"anomalib's {self.options.anomalib.model} has no anomaly map, which is required"
            )
        return maps.float().flatten(0, -3) if maps.ndim == 4 else maps.float()

    def anomaly_maps(self) -> Tensor:
        size = (self.context.map_size,) * 2
        if self.mb_output.shape[1:] == size:
            return self.mb_output
        return F.interpolate(self.mb_output[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


class AnomalibSeparate(Anomalib):
    """One model per object; a test image is scored by the model of its own object, one of an object that has
    not been learnt yet by the newest."""

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, object_id_at_test=True)

    def build_network(self) -> nn.Module:
        return nn.ModuleDict()

    def _model_of(self, key: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.context.seeds.initialisation, "object", int(key)))
            return self._model()

    def adapt_network(self) -> None:
        for key in self._parts():
            self.model[key] = self._model_of(key)

    def restore(self, state: dict[str, Any]) -> None:
        for key in dict.fromkeys(name.split(".")[0] for name in state["network"]):
            if key not in self.model:
                self.model[key] = self._model_of(key)
        super().restore(state)

    def _parts(self) -> dict[str, ResidentData]:
        data = self.experience.resident
        keys = data.objects.unique().tolist()
        return {str(key): _selected(data, torch.nonzero(data.objects == key)[:, 0]) for key in keys}

    def forward(self) -> Tensor:
        batch = self.mbatch
        maps: list[Tensor] = [torch.empty(0)] * len(batch)
        for key in batch.objects.unique().tolist():
            own = torch.nonzero(batch.objects == key)[:, 0]
            name = str(key) if str(key) in self.model else list(self.model)[-1]
            for place, image in zip(own.tolist(), self._maps(name, batch.guide[own])):
                maps[place] = image
        return torch.stack(maps)


def model_class(name: str) -> Any:
    """The class of an anomalib model. Raises InputError if anomalib is missing or has no such model."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from anomalib import models
            from anomalib.models import AnomalibModule
    except ImportError as error:
        raise InputError(f"anomalib is not available ({error}): pip install iufbench[anomalib]") from error
    kinds = {n: k for n, k in vars(models).items() if isinstance(k, type) and issubclass(k, AnomalibModule)}
    kinds.pop("AnomalibModule", None)
    if name not in kinds:
        raise InputError(
            f"anomalib has no model '{name}'{suggest(name, kinds)} (known: {', '.join(sorted(kinds))})"
        )
    return kinds[name]


class _Images:
    """Batches of normal images as anomalib's models expect them; ``watch`` sees the batch each comes from."""

    def __init__(
        self,
        data: ResidentData,
        batch_size: int,
        generator: torch.Generator | None = None,
        watch: Callable[[Any], None] = lambda batch: None,
    ) -> None:
        self.batches, self.watch = Batches(data, batch_size, generator), watch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        from anomalib.data import ImageBatch

        for batch in self.batches:
            self.watch(batch)
            assert batch.guide is not None
            label = torch.zeros(len(batch), dtype=torch.bool)
            yield ImageBatch(image=_pixels(batch.guide), gt_label=label)


def _lightning_fit(
    model: Any,
    train: _Images,
    validation: _Images,
    epochs: int,
    device: torch.device,
    precision: str,
    after: Any,
) -> None:
    from lightning.pytorch import Callback, LightningDataModule, Trainer

    class Data(LightningDataModule):
        train_batch_size = eval_batch_size = train.batches.batch_size

        def train_dataloader(self) -> Any:
            return train

        def val_dataloader(self) -> Any:
            return validation

    class Watch(Callback):
        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int
        ) -> None:
            after(outputs)

    settings = {
        "max_epochs": epochs,
        **model.trainer_arguments,
        "accelerator": "gpu" if device.type == "cuda" else "cpu",
        "devices": [device.index or 0] if device.type == "cuda" else 1,
        "precision": precision,
        "callbacks": [Watch()],
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning", "anomalib")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Trainer(**settings).fit(model, datamodule=Data())
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
        model.trainer = None  # it holds the images


def _pixels(images: Tensor) -> Tensor:
    """float32 in 0..1 of uint8 images [B, 3, S, S]."""
    return images.float() / 255


def _selected(data: ResidentData, index: Tensor) -> ResidentData:
    assert data.guide is not None
    where = index.to(data.guide.device)
    return ResidentData(data.features[where], data.objects[index], data.guide[where], data.ahead)


def _line(error: Exception) -> str:
    """Type and first line of an error of another library."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
