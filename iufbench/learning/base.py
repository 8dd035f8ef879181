"""The reconstruction strategy that all gradient-trained methods extend: an Avalanche template.

A method overrides the hooks it needs: ``losses`` (the objective) and Avalanche's callbacks, such as
``_before_training_iteration``, ``_before_update`` (gradients are available) and ``_after_training_exp``.
"""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn

from iufbench.cards.strategies import Training
from iufbench.data.resident import Batch
from iufbench.learning.context import Context, Uses
from iufbench.learning.optimizer import CardOptimizer, learning_rate_factor, start_given
from iufbench.learning.step import Capture, Step
from iufbench.learning.stock import check_plugins, schedules
from iufbench.learning.template import InputTemplate
from iufbench.models.uniad import Reconstruction, UniAD, anomaly_map
from iufbench.support.folders import cache_folder
from iufbench.support.nested import flat


class ReconstructionStrategy(InputTemplate):
    """UniAD trained on one experience after another (the "UniAD" row of the papers).

    ``Options`` are the card blocks specific to a learner.

    Attributes:
        replayed_images: Number of old images replayed in the current experience.
    """

    @dataclass(frozen=True)
    class Options:
        pass

    uses: ClassVar[Uses] = Uses()
    # Short reason why an iteration cannot be captured as a CUDA graph, None if it can (learning/step.py).
    not_captured: ClassVar[str | None] = None
    capture: ClassVar[Capture | None] = None  # None: CUDA graphs on a GPU
    within: ClassVar[tuple[str, ...]] = ("training_log", "replayed_images")

    def __init__(
        self,
        *,
        context: Context,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        train_mb_size: int | None = None,
        train_epochs: int | None = None,
        eval_mb_size: int | None = None,
        plugins: Sequence[Any] | None = None,
        evaluator: Any = None,
        eval_every: int = -1,
        peval_mode: str = "epoch",
    ) -> None:
        """Create the strategy; arguments that are None take their value from the card in ``context``.

        Args:
            context: The card, the shape of the inputs and the device (from ``benchmark.context``).
            model: Used instead of ``build_network``; its forward pass returns a ``Reconstruction``.
            optimizer: Used in all experiences instead of the card's optimizer, whose learning rates and
                schedules are then ignored. Its state is cleared at the start of each experience.
            train_mb_size: Training batch size, for all experiences.
            train_epochs: Epochs per experience, for all experiences.
            eval_mb_size: Test batch size.
            plugins: As in Avalanche.
            evaluator: As in Avalanche; None logs nothing.
            eval_every: As in Avalanche.
            peval_mode: As in Avalanche.

        Raises:
            InputError: A stock plugin does not support reconstruction networks.
        """
        context = context.with_training(train_mb_size, train_epochs, eval_mb_size)
        self.context = context
        self.recipe = context.recipe
        self.options = context.options
        self.replayed_images = 0
        self._standardises = getattr(model, "standardise", self.recipe.network.standardise)
        model = self.build_network() if model is None else model
        super().__init__(
            model=model,
            optimizer=optimizer or CardOptimizer(self.recipe.base, _trainable(model)),
            train_mb_size=self.recipe.base.batch_size,
            eval_mb_size=self.recipe.evaluation_batch_size,
            device=context.device,
            evaluator=_silent() if evaluator is None else evaluator,
            plugins=plugins,
            eval_every=eval_every,
            peval_mode=peval_mode,
        )
        check_plugins(self)
        self._compiled: Any = None
        if context.compile:
            self.compile_network()
        self._step: Step | None = None
        self.step_note: str | None = None  # how iterations are executed, if not as by default

    # What a method may override ------------------------------------------------------------------

    @classmethod
    def guide_size(cls, options: Any, image_size: int) -> int | None:
        """Side in pixels (at most ``image_size``) of the images needed besides features, or None."""
        return None

    def build_network(self) -> nn.Module:
        """Create the trainable network, freshly initialised."""
        return UniAD(**self.network_arguments())

    def adapt_network(self) -> None:
        """Extend the network for the objects of the current experience (before its first iteration)."""

    def losses(self) -> dict[str, Tensor]:
        """Compute the loss on the current mini-batch.

        Returns:
            Weighted loss terms by name, scalars with gradients; their sum is minimised.
        """
        output = self.mb_output
        return {"reconstruction": F.mse_loss(output.reconstruction, output.target)}

    def apart(self) -> list[Tensor]:
        """Tensors of the forward pass that ``losses_apart`` uses, for loss terms that synchronise with the
        device and therefore cannot be captured in a CUDA graph."""
        return []

    def losses_apart(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """The weighted loss terms computed from the tensors of ``apart``, by name."""
        return {}

    def anomaly_maps(self) -> Tensor:
        """Anomaly maps [B, S, S] float32 of the current test batch; higher is more anomalous."""
        return anomaly_map(self.mb_output, self.context.map_size)

    def beside_network(self) -> Any:
        """The tensors that the next experience needs besides the network's weights, in nested containers.

        Includes the ``carried`` attributes. A method adds what it derives from the network or its memory when
        the next experience begins, such as copies of the network or projections.
        """
        return self._named("carried")

    def clipped_together(self) -> list[list[nn.Parameter]]:
        """Groups of parameters; the card's ``clip_norm`` bounds the gradient norm of each group."""
        return [list(self.model.parameters())]

    @property
    def network(self) -> Any:
        """The model, or its compiled version for full training batches if the run is compiled.

        Compiled code ignores hooks that are added later, so evaluations and code that collects activations
        call ``model`` directly. The smaller last batch of an epoch would be compiled once more.
        """
        if self._compiled is None or not self.model.training or len(self.mbatch) != self.train_mb_size:
            return self.model
        return self._compiled

    @property
    def bytes_kept(self) -> int:
        """Size of ``beside_network`` in bytes, computed in the same way for every method."""
        return sum(getattr(tensor, "nbytes", 0) for tensor in flat(self.beside_network()).values())

    @property
    def compiled(self) -> bool:
        """Whether full training batches use ``torch.compile``."""
        return self._compiled is not None

    def compile_network(self, on: bool = True) -> None:
        """Train with ``torch.compile`` from now on, or without it; artefacts are kept in the cache folder."""
        if not on:
            self._compiled = None
        elif self._compiled is None:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
            torch.compiler.reset()  # a grown classifier is recompiled, which torch does only a few times
            self._compiled = torch.compile(self.model)

    # Set-up ----------------------------------------------------------------------------------------

    def fit_standardisation(self) -> None:
        """Compute the mean and standard deviation of every channel, on the first experience only."""
        assert self.experience is not None
        self.model.fit_standardisation(self.experience.resident.features.to(self.device))

    def network_arguments(self) -> dict[str, Any]:
        """Arguments of the reconstruction network, from the card and the shape of the features."""
        network = self.recipe.network
        mask = network.neighbour_mask
        return {
            "channels": self.context.channels,
            "feature_size": self.context.feature_size,
            "hidden": network.hidden,
            "heads": network.heads,
            "feedforward": network.feedforward,
            "encoder_layers": network.encoder_layers,
            "decoder_layers": network.decoder_layers,
            "dropout": network.dropout,
            "neighbour_mask": None if mask is None else (mask, mask),
            "mask_switches": network.mask_switches,
            "position": network.position,
            "jitter_scale": network.jitter_scale,
            "jitter_probability": network.jitter_probability,
            "standardise": network.standardise,
            "precision": self.context.precision,
        }

    @property
    def schedule(self) -> Training:
        """The card's block for the current experience: ``base`` first, ``increment`` afterwards."""
        assert self.experience is not None
        return self.recipe.training(self.experience.current_experience)

    def _before_training(self, **kwargs: Any) -> None:
        check_plugins(self)  # plugins can be attached at any time
        super()._before_training(**kwargs)

    def _before_training_exp(self, **kwargs: Any) -> None:
        self._check_inputs()
        assert self.experience is not None
        number = self.experience.current_experience
        self.train_epochs = self.schedule.epochs_of(number)
        self.train_mb_size = self.schedule.batch_size
        self.replayed_images = 0
        if number == 0 and self._standardises:
            self.fit_standardisation()
        super()._before_training_exp(**kwargs)
        self._sums = {}
        self._step = Step(self, self.capture)

    def _after_training_exp(self, **kwargs: Any) -> None:
        assert self._step is not None
        self.step_note = self._step.note
        self._step = None  # also frees what it has captured
        super()._after_training_exp(**kwargs)

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        # Gradients left on weights that are frozen from now on would count in the clipped norm.
        self.model.zero_grad(set_to_none=True)
        # Avalanche's first call would add frozen parameters to the optimiser and reset its state.
        self.adapt_network()
        self.model.to(self.device)
        self.make_optimizer()

    def make_optimizer(self, **kwargs: Any) -> None:
        """Reset the optimiser to the trainable parameters of the experience and create its schedule.

        A scheduler attached as Avalanche's ``LRSchedulerPlugin`` replaces the card's schedule; it starts from
        the card's learning rate for this experience.
        """
        parameters, training, self.scheduler = _trainable(self.model), self.schedule, None
        if not isinstance(self.optimizer, CardOptimizer):
            start_given(self.optimizer, parameters)
            return
        self.optimizer.start(training, parameters)
        attached = schedules(self)
        for schedule in attached:
            schedule.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        if not attached:
            per_epoch = len(self.dataloader)  # type: ignore[arg-type]
            factor = learning_rate_factor(training, self.train_epochs * per_epoch, per_epoch)
            self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    # One iteration -----------------------------------------------------------------------------------

    def forward(self) -> Any:
        """The network's output for the current mini-batch: a ``Reconstruction``, where it reconstructs."""
        batch: Batch = self.mbatch
        return self.network(batch.x, guide=batch.guide)

    def criterion(self) -> Tensor:
        if not self.is_training:
            return self.test_loss()
        return self.summed({**self.losses(), **self.losses_apart(self.apart())})

    def test_loss(self) -> Tensor:
        """The mean squared reconstruction error of the test batch; NaN for a learner without such a loss."""
        output = self.mb_output
        if not isinstance(output, Reconstruction):
            return torch.full((), math.nan, device=self.device)
        return F.mse_loss(output.reconstruction, output.target)

    def _before_update(self, **kwargs: Any) -> None:
        if self.schedule.clip_norm is not None:
            for parameters in self.clipped_together():
                nn.utils.clip_grad_norm_(parameters, self.schedule.clip_norm)
        super()._before_update(**kwargs)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _silent() -> EvaluationPlugin:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        return EvaluationPlugin(collect_all=False)  # its history would grow without bound
