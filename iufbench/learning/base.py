"""The reconstruction strategy that every gradient-trained method shares: an Avalanche template.

A method overrides the hook it needs, in Avalanche's own words: ``losses`` (what is minimised),
``_before_training_iteration``, ``_before_update`` (gradients are there), ``_after_training_exp``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iufbench.cards.strategies import Training
from iufbench.data.resident import Batch, Batches
from iufbench.learning.context import Context, Uses
from iufbench.learning.resumable import Resumable
from iufbench.learning.stable_adamw import StableAdamW
from iufbench.models.uniad import UniAD, anomaly_map
from iufbench.support.nested import flat
from iufbench.support.seeding import derive


class ReconstructionStrategy(Resumable):
    """UniAD trained one experience after another (the papers' "UniAD" row, as a learner).

    ``Options`` are the card blocks that only this learner has. ``replayed_images``: how many old images were
    shown again in the current experience.
    """

    @dataclass(frozen=True)
    class Options:
        pass

    optimizer: torch.optim.Optimizer
    mbatch: Any
    mb_output: Any

    uses: ClassVar[Uses] = Uses()
    within: ClassVar[tuple[str, ...]] = ("training_log", "replayed_images")

    def __init__(self, *, context: Context, evaluator: Any = None, plugins: Any = None) -> None:
        self.context = context
        self.recipe = context.recipe
        self.options = context.options
        self.training_log: list[dict[str, float]] = []
        self.replayed_images = 0
        self._sums: dict[str, Tensor] = {}
        self._images = 0
        self._rate = math.nan
        model = self.build_network()
        super().__init__(
            model=model,
            # Replaced before every experience; Avalanche insists on having one from the start, and torch
            # on it holding a parameter, which a learner without gradients does not have.
            optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(0))], lr=1.0),
            train_mb_size=context.recipe.base.batch_size,
            eval_mb_size=context.recipe.evaluation_batch_size,
            device=context.device,
            evaluator=evaluator,
            plugins=plugins,
        )
        self._compiled = torch.compile(self.model) if context.compile else None

    # What a method may override ------------------------------------------------------------------

    @classmethod
    def guide_size(cls, options: Any, image_size: int) -> int | None:
        """Side, at most ``image_size``, of the images that the learner wants beside features, or None."""
        return None

    def build_network(self) -> nn.Module:
        """The trainable network, freshly initialised."""
        return UniAD(**self.network_arguments())

    def adapt_network(self) -> None:
        """Make room for the objects of the current experience (before its first iteration)."""

    def losses(self) -> dict[str, Tensor]:
        """The weighted terms of the loss on the current mini-batch, by name."""
        output = self.mb_output
        return {"reconstruction": F.mse_loss(output.reconstruction, output.target)}

    def anomaly_maps(self) -> Tensor:
        """Anomaly maps [B, S, S] float32 of the current test batch; higher is more anomalous."""
        return anomaly_map(self.mb_output, self.context.map_size)

    def beside_network(self) -> Any:
        """The tensors that the next experience needs beside the deployed network's weights, however nested.

        What is ``carried`` is among them. A method adds what it makes of the network or of its memory when
        the next experience begins: copies of the network, projections.
        """
        return self._named("carried")

    def clipped_together(self) -> list[list[nn.Parameter]]:
        """Groups of parameters whose gradients' common norm the card's ``clip_norm`` bounds."""
        return [list(self.model.parameters())]

    @property
    def network(self) -> Any:
        """The model, or in training its compiled form when the run asks for one.

        Compiled code does not see hooks that are added later, so whatever collects activations, and every
        evaluation, calls ``model`` itself.
        """
        return self._compiled if self._compiled is not None and self.model.training else self.model

    @property
    def bytes_kept(self) -> int:
        """Bytes of ``beside_network``, counted alike for every method."""
        return sum(getattr(tensor, "nbytes", 0) for tensor in flat(self.beside_network()).values())

    # Set-up ----------------------------------------------------------------------------------------

    def fit_standardisation(self) -> None:
        """Take mean and deviation of every channel from the first experience, once and for all."""
        assert self.experience is not None
        self.model.fit_standardisation(self.experience.resident.features.to(self.device))

    def network_arguments(self) -> dict[str, Any]:
        """Arguments of the reconstruction network from the card and the shape of the features."""
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

    def _before_training_exp(self, **kwargs: Any) -> None:
        assert self.experience is not None
        number = self.experience.current_experience
        self.train_epochs = self.schedule.epochs_of(number)
        self.train_mb_size = self.schedule.batch_size
        self.replayed_images = 0
        if number == 0 and self.recipe.network.standardise:
            self.fit_standardisation()
        super()._before_training_exp(**kwargs)

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        # Avalanche's own first call would put frozen parameters into the optimiser and wipe its state.
        self.adapt_network()
        self.model.to(self.device)
        self.make_optimizer()

    def make_optimizer(self, **kwargs: Any) -> None:
        """A fresh optimiser and schedule over the trainable parameters."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        training = self.schedule
        if training.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(
                parameters, lr=training.lr, weight_decay=training.weight_decay, fused=True
            )
        elif training.optimizer == "stable_adamw":
            self.optimizer = StableAdamW(parameters, lr=training.lr, weight_decay=training.weight_decay)
        else:
            self.optimizer = torch.optim.SGD(parameters, lr=training.lr, weight_decay=training.weight_decay)
        iterations = self.train_epochs * len(self.dataloader)  # type: ignore[arg-type]
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            learning_rate_factor(training, iterations, len(self.dataloader)),  # type: ignore[arg-type]
        )

    def make_train_dataloader(self, **kwargs: Any) -> None:
        assert self.experience is not None
        seed = derive(self.context.seeds.order, "experience", self.experience.current_experience)
        generator = torch.Generator().manual_seed(seed)
        self.dataloader = self.training_batches(generator)

    def training_batches(self, generator: torch.Generator) -> Any:
        """The mini-batches of one epoch, in an order drawn from ``generator``; has a length."""
        assert self.experience is not None
        return Batches(self.experience.resident, self.train_mb_size, generator)

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        assert self.experience is not None
        self.dataloader = Batches(self.experience.resident, self.eval_mb_size)

    def _eval_cleanup(self) -> None:
        super()._eval_cleanup()
        self.mbatch = self.mb_output = None  # no test image lies about in training

    @property
    def mb_task_id(self) -> Tensor:
        # Avalanche takes the length of a batch for the number of its parts; ours is that of its images.
        return self.mbatch.task

    def model_adaptation(self, model: nn.Module | None = None) -> nn.Module:
        return self.model if model is None else model

    # One iteration -----------------------------------------------------------------------------------

    def _unpack_minibatch(self) -> None:
        self.mbatch = self.mbatch.to(self.device, non_blocking=True)

    def forward(self) -> Any:
        """The network's output for the current mini-batch: a ``Reconstruction``, where it reconstructs."""
        batch: Batch = self.mbatch
        return self.network(batch.x, guide=batch.guide)

    def criterion(self) -> Tensor:
        if not self.is_training:
            return torch.zeros((), device=self.device)
        terms = self.losses()
        for name, value in terms.items():
            value = value.detach() * len(self.mbatch)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._images += len(self.mbatch)
        return sum(terms.values(), torch.zeros((), device=self.device))

    def _before_update(self, **kwargs: Any) -> None:
        if self.schedule.clip_norm is not None:
            for parameters in self.clipped_together():
                nn.utils.clip_grad_norm_(parameters, self.schedule.clip_norm)
        super()._before_update(**kwargs)

    def _after_training_iteration(self, **kwargs: Any) -> None:
        self._rate = self.optimizer.param_groups[0]["lr"]  # of this iteration, before the next one's is set
        self.scheduler.step()
        super()._after_training_iteration(**kwargs)

    def _before_training_epoch(self, **kwargs: Any) -> None:
        self._sums, self._images = {}, 0
        super()._before_training_epoch(**kwargs)

    def _after_training_epoch(self, **kwargs: Any) -> None:
        row = {name: float(total) / max(self._images, 1) for name, total in self._sums.items()}
        self.training_log.append({"loss": sum(row.values()), **row, "lr": self._rate})
        super()._after_training_epoch(**kwargs)


def learning_rate_factor(training: Training, iterations: int, per_epoch: int) -> Callable[[int], float]:
    """The factor on ``lr`` at an iteration: warm-up, then constant, step (per epoch) or cosine to
    ``final_factor``."""

    def factor(iteration: int) -> float:
        warm = min(1.0, (iteration + 1) / (training.warmup_iterations + 1))
        if training.schedule == "step":
            return warm * training.step_gamma ** (iteration // per_epoch // training.step_epochs)
        if training.schedule == "cosine":
            fallen = 0.5 + 0.5 * math.cos(math.pi * min(iteration / max(iterations, 1), 1.0))
            return warm * (training.final_factor + (1 - training.final_factor) * fallen)
        return warm

    return factor
