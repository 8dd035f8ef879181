"""Estimates the GPU memory of a training step before images are read.

One forward and backward pass at the real batch size is executed on tensors without memory (torch's fake
tensors), and the peak number of allocated bytes is computed.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iufbench.data.resident import Batch
from iufbench.engine.assembly import backbone_spec, build_strategy
from iufbench.engine.plan import Plan
from iufbench.models.backbone import FrozenBackbone
from iufbench.models.uniad import Reconstruction
from iufbench.support.errors import InputError

COPIES = 3  # of the weights, beside themselves: gradients and the optimiser's two moments
GIB = 2**30
PLENTY = 4 * GIB  # per image of 224 pixels a side: twice what the largest network on a card takes


def needed_bytes(plan: Plan, batch_size: int, saving: bool = False) -> int | None:
    """Compute a lower bound on the bytes allocated by a training step, without rehearsal and network copies.

    Args:
        plan: The plan of a run that trains a network.
        batch_size: Images per step.
        saving: Enable ``save_memory`` of the network.

    Returns:
        Bytes, or None for a network without ``save_memory``, or whose step cannot be executed without values.
    """
    cpu = torch.device("cpu")
    backbone = FrozenBackbone(backbone_spec(plan.recipe.backbone, weights="random"), cpu)
    strategy = build_strategy(plan, backbone, cpu)
    if saving and not hasattr(strategy.model, "save_memory"):
        return None
    if saving:
        strategy.model.save_memory()
    for part in strategy.model.modules():
        if isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.0  # with dropout, attention on the CPU keeps what a GPU recomputes
    try:
        peak = _peak_of_a_step(plan, strategy, batch_size)
    except (RuntimeError, NotImplementedError, AttributeError):  # it branches on values, or needs state
        return None
    weights = sum(p.nbytes for p in strategy.model.parameters())
    return None if peak is None else peak + (1 + COPIES) * weights


def _peak_of_a_step(plan: Plan, strategy: Any, batch_size: int) -> int | None:
    context = strategy.context
    guide = plan.learner.guide_size(plan.options, plan.recipe.image_size)
    strategy.model.train()
    with FakeTensorMode(allow_non_fake_inputs=True), _Alive() as alive:
        zeros = torch.zeros(batch_size, dtype=torch.int64)
        strategy.mbatch = Batch(
            torch.empty(batch_size, context.channels, *context.feature_size),
            zeros,
            zeros,
            None if guide is None else torch.empty(batch_size, 3, guide, guide, dtype=torch.uint8),
            torch.empty(batch_size, context.vector) if context.vector else None,
        )
        output = strategy.forward()
        if not isinstance(output, Reconstruction):
            return None
        loss = F.mse_loss(output.reconstruction, output.target)
        if output.class_logits is not None:
            loss = loss + F.cross_entropy(output.class_logits, zeros)
        loss.backward()
    return alive.peak


class _Alive(TorchDispatchMode):
    """Counts the bytes of tensors created while it is active. ``peak``: maximum allocated at once."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self._sizes.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self._sizes.values()))
        return result


def check_gpu_memory(plan: Plan, device: torch.device) -> str | None:
    """Check that a training step fits into a GPU's free memory, at the larger of both batch sizes.

    Args:
        plan: The plan.
        device: The device of the run.

    Returns:
        None if it fits; the reason for ``save_memory`` if it fits only with it.

    Raises:
        InputError: It does not fit; the message gives the required memory and a remedy.
    """
    if device.type != "cuda" or not plan.learner.uses.gradients:
        return None
    sizes = {block: getattr(plan.recipe, block).batch_size for block in ("base", "increment")}
    block = max(sizes, key=lambda name: sizes[name])
    free, size = torch.cuda.mem_get_info(device)[0], sizes[block]
    if free >= size * PLENTY * (plan.recipe.image_size / 224) ** 2:
        return None
    needed = needed_bytes(plan, size)
    if needed is None or needed <= free:
        return None
    with_saving = needed_bytes(plan, size, saving=True)
    if with_saving is not None and with_saving <= free:
        return (
            f"a training step would need {needed / GIB:.1f} GiB of GPU memory and {free / GIB:.1f} GiB are "
            "free: activations are recomputed in the backward pass"
        )
    least = min(needed, with_saving or needed)
    precision, fitting = plan.request.precision, max(1, int(size * free / least))
    raise InputError(
        f"not enough GPU memory: a training step of {plan.card.name} at batch size {size} in {precision} "
        f"needs at least {least / GIB:.1f} GiB, {torch.cuda.get_device_name(device)} has "
        f"{free / GIB:.1f} GiB free: lower the batch size (--set {block}.batch_size={fitting})"
        + ("" if precision == "bf16" else " or use --precision bf16")
    )
