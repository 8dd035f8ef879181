"""Avalanche's training template on mini-batches of frozen inputs, with a log of the losses of each epoch."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from iufbench.data.resident import Batches, as_batch
from iufbench.learning.context import Context, Uses
from iufbench.learning.resumable import Resumable
from iufbench.learning.step import Step
from iufbench.support.errors import InputError
from iufbench.support.seeding import derive


class InputTemplate(Resumable):
    """Replaces what Avalanche's template assumes about labelled images: loaders, unpacking, task labels.

    Attributes:
        training_log: One entry per epoch: loss terms and learning rate.
    """

    context: Context
    uses: ClassVar[Uses]
    optimizer: torch.optim.Optimizer
    mbatch: Any
    mb_output: Any
    _step: Step | None

    def __init__(self, **arguments: Any) -> None:
        """Create the template; all arguments are passed to Avalanche's."""
        self.training_log: list[dict[str, float]] = []
        self._sums: dict[str, Tensor] = {}
        self._images = 0
        self._rate: float | Tensor = math.nan
        super().__init__(**arguments)

    def eval(self, exp_list: Any, *, untrained: bool = False, **kwargs: Any) -> Any:
        """Evaluate as Avalanche does.

        Args:
            exp_list: An experience or a stream.
            untrained: Allow evaluation before any training, for learners that support it.
            **kwargs: Passed to Avalanche.

        Returns:
            The metrics of the evaluator.

        Raises:
            InputError: The strategy has not been trained, or the inputs have a different shape.
        """
        before = self.is_training and self.uses.gradients  # Avalanche's periodic evaluation begins with one
        if self.clock.train_iterations == 0 and not (untrained or before):
            raise InputError("eval before train: call strategy.train(experience) first")
        return super().eval(exp_list, **kwargs)

    def _check_inputs(self) -> None:
        data, context = getattr(self.experience, "resident", None), self.context
        if data is None:
            raise InputError(
                "this experience has no frozen inputs: take experiences from iufbench.make_benchmark"
            )
        made, given = (context.channels, *context.feature_size), tuple(data.features.shape[1:])
        if made != given:
            raise InputError(
                f"the strategy was created for features of shape {made}, the experience has {given}: "
                "use iufbench.make_strategy with the benchmark that it is trained on"
            )

    def _before_eval_exp(self, **kwargs: Any) -> None:
        self._check_inputs()
        super()._before_eval_exp(**kwargs)

    def make_train_dataloader(self, **kwargs: Any) -> None:
        assert self.experience is not None
        seed = derive(self.context.seeds.order, "experience", self.experience.current_experience)
        generator = torch.Generator().manual_seed(seed)
        self.dataloader = self.training_batches(generator)

    def training_batches(self, generator: torch.Generator) -> Any:
        """The mini-batches of one epoch as a sized iterable, in an order drawn from ``generator``."""
        assert self.experience is not None
        return Batches(self.experience.resident, self.train_mb_size, generator)

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        assert self.experience is not None
        self.dataloader = Batches(self.experience.resident, self.eval_mb_size)

    def _eval_cleanup(self) -> None:
        super()._eval_cleanup()
        self.mbatch = self.mb_output = None  # no test image stays reachable in training

    @property
    def mb_task_id(self) -> Tensor:
        # Avalanche takes the length of a batch as its number of parts; ours is its number of images.
        return self.mbatch.task

    def model_adaptation(self, model: nn.Module | None = None) -> nn.Module:
        return self.model if model is None else model

    def _unpack_minibatch(self) -> None:
        self.mbatch = as_batch(self.mbatch).to(self.device, non_blocking=True)

    def training_epoch(self, **kwargs: Any) -> None:
        assert self._step is not None
        for batch in self.dataloader:
            self.mbatch = batch
            if self._stop_training:
                break
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            self._step()
            self._after_training_iteration(**kwargs)

    def summed(self, terms: dict[str, Tensor]) -> Tensor:
        """Sum the loss terms of a mini-batch, and add each one in place to the log of the epoch."""
        for name, value in terms.items():
            value = value.detach() * len(self.mbatch)
            if name in self._sums:
                self._sums[name] += value
            else:
                self._sums[name] = value
        return sum(terms.values(), torch.zeros((), device=self.device))

    def _after_training_iteration(self, **kwargs: Any) -> None:
        self._images += len(self.mbatch)
        rate = self.optimizer.param_groups[0]["lr"]  # of this iteration, before the next one's is set
        self._rate = rate.clone() if isinstance(rate, Tensor) else rate
        if self.scheduler is not None:
            self.scheduler.step()
        super()._after_training_iteration(**kwargs)

    def _before_training_epoch(self, **kwargs: Any) -> None:
        self._images = 0
        for total in self._sums.values():
            total.zero_()
        super()._before_training_epoch(**kwargs)

    def _after_training_epoch(self, **kwargs: Any) -> None:
        row = {name: float(total) / max(self._images, 1) for name, total in self._sums.items()}
        self.training_log.append({"loss": sum(row.values()), **row, "lr": float(self._rate)})
        super()._after_training_epoch(**kwargs)
