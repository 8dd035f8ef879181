"""Methods that store features instead of training a network: one pass, no optimiser, no gradients.

A learner implements how patches are stored (``see``, ``settle``) and the distance of a patch to the memory
(``distances``). Its declaration in ``uses`` determines how the memory is organised:

- nothing: one memory for all objects;
- ``object_id_at_training``: one memory per object; a test image is scored by the memory that ``route``
  selects (by default the one with the smallest median patch distance: defects cover few patches);
- ``object_id_at_test`` as well (an oracle): a test image is scored by the memory of its own object. An
  object that has not been learnt yet is scored by the memory that ``route`` selects.
"""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from avalanche.training.utils import trigger_plugins
from torch import Tensor, nn

from iufbench.data.resident import UNKNOWN_OBJECT
from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.context import Uses
from iufbench.support.errors import InputError
from iufbench.support.fields import number

SHARED = UNKNOWN_OBJECT  # the key of a memory that belongs to no object in particular


@dataclass(frozen=True)
class Patches:
    """``neighbourhood``: side of the window of tokens that is averaged into one patch feature;
    ``smoothing``: standard deviation, in pixels of the 224x224 anomaly map, of the final Gaussian blur."""

    neighbourhood: Literal[1, 3, 5, 7] = 3
    smoothing: float = number(4.0, at_least=0)


class PatchEmbedding(nn.Module):
    """Patch features from frozen features; has no parameters.

    Standardises each channel (after ``fit_standardisation``), then averages over a window of
    ``neighbourhood`` x ``neighbourhood`` tokens; at the border, over the tokens inside the map.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, channels: int, neighbourhood: int) -> None:
        super().__init__()
        self.neighbourhood = neighbourhood
        self.register_buffer("feature_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("feature_std", torch.ones(channels, 1, 1))

    def fit_standardisation(self, features: Tensor) -> None:
        """Set the mean and standard deviation of every channel from features [N, C, h, w]."""
        std, mean = torch.std_mean(features.float(), dim=(0, 2, 3), correction=0)
        # A constant channel keeps scale 1, so that it cannot blow up on other images.
        std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
        self.feature_mean.copy_(mean[:, None, None])
        self.feature_std.copy_(std[:, None, None])

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, C, h, w] to patch features [B, C, h, w]."""
        window = self.neighbourhood
        return F.avg_pool2d(
            (features - self.feature_mean) / self.feature_std,
            window,
            stride=1,
            padding=window // 2,
            count_include_pad=False,
        )


class MemoryBank(ReconstructionStrategy):
    """Base class of the methods that store features.

    Attributes:
        memory: Stored tensors by name, for every object id or under ``SHARED``.
        routed: With ``uses.routing``, the object [B] whose memory scored each image of the last test batch;
            else None.
    """

    @dataclass(frozen=True)
    class Options:
        patches: Patches = field(default_factory=Patches)

    uses: ClassVar[Uses] = Uses(gradients=False)
    carried: ClassVar[tuple[str, ...]] = ("memory",)
    within: ClassVar[tuple[str, ...]] = ("memory",)  # up to date at the end of the only epoch

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.memory: dict[int, dict[str, Tensor]] = {}
        self.routed: Tensor | None = None

    # What a method fills in ------------------------------------------------------------------------

    @abstractmethod
    def see(self, key: int, patches: Tensor, vectors: Tensor | None) -> None:
        """Process a batch of training images.

        Args:
            key: The memory that the images belong to: an object id or ``SHARED``.
            patches: Patch features [B, C, h, w].
            vectors: Per-image feature vectors [B, V], None if the card requests none.
        """

    @abstractmethod
    def settle(self) -> None:
        """Update ``memory`` after all images of an experience have been processed once."""

    @abstractmethod
    def distances(self, key: int, patches: Tensor) -> Tensor:
        """Compute the distance of patches to a memory.

        Args:
            key: Key of the memory.
            patches: Patch features [B, C, h, w].

        Returns:
            Distances [B, h, w]; higher is more anomalous.
        """

    def route(self, patches: Tensor, vectors: Tensor | None) -> Tensor:
        """Select the memory that scores each image: here the one with the smallest median patch distance.

        Args:
            patches: Patch features [B, C, h, w].
            vectors: Per-image feature vectors [B, V], None if the card requests none.

        Returns:
            Keys of memories, int64 [B].
        """
        distances = torch.stack([self.distances(key, patches) for key in self.memory])
        keys = torch.tensor(list(self.memory), device=patches.device)
        return keys[distances.flatten(2).median(dim=2).values.argmin(dim=0)]

    # Training ----------------------------------------------------------------------------------------

    def build_network(self) -> nn.Module:
        return PatchEmbedding(self.context.channels, self.options.patches.neighbourhood)

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        self.model.to(self.device)

    def _before_training_exp(self, **kwargs: Any) -> None:
        super()._before_training_exp(**kwargs)
        self.train_epochs = 1

    @torch.no_grad()
    def training_epoch(self, **kwargs: Any) -> None:
        for batch in self.dataloader:
            self.mbatch = batch
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            self.mb_output = self.forward()
            objects = self.mbatch.objects
            keys = objects if self.uses.object_id_at_training else torch.full_like(objects, SHARED)
            for key in keys.unique().tolist():
                own = keys == key
                vectors = self.mbatch.vector
                self.see(key, self.mb_output[own], None if vectors is None else vectors[own])
            trigger_plugins(self, "after_training_iteration", **kwargs)
        self.settle()

    def _after_training_epoch(self, **kwargs: Any) -> None:
        images = len(self.experience.resident)
        self.training_log.append({"images": images, "bytes_kept": self.bytes_kept})
        trigger_plugins(self, "after_training_epoch", **kwargs)

    # Evaluation --------------------------------------------------------------------------------------

    def forward(self) -> Tensor:
        return self.model(self.mbatch.x)

    def anomaly_maps(self) -> Tensor:
        self.routed = None
        if self.uses.object_id_at_test:
            distances = self._judged_by_own(self.mb_output)
        elif self.uses.routing:
            self.routed = self.route(self.mb_output, self.mbatch.vector)
            distances = self._judged_by(self.mb_output, self.routed)
        else:
            distances = self.distances(SHARED, self.mb_output)
        return self.to_maps(distances)

    def to_maps(self, distances: Tensor) -> Tensor:
        """Upsample patch distances [B, h, w] to anomaly maps [B, S, S] and smooth them."""
        size = (self.context.map_size,) * 2
        maps = F.interpolate(distances[:, None], size=size, mode="bilinear", align_corners=True)
        return blur(maps[:, 0], self.options.patches.smoothing)

    def _judged_by(self, patches: Tensor, keys: Tensor) -> Tensor:
        """[B, h, w]: distances of each image to the memory given by ``keys`` [B]."""
        result = patches.new_empty(len(patches), *patches.shape[2:])
        for key in keys.unique().tolist():
            own = keys == key
            result[own] = self.distances(key, patches[own])
        return result

    def _judged_by_own(self, patches: Tensor) -> Tensor:
        """[B, h, w]: distances of each image to the memory of its object."""
        keys = self.mbatch.objects.to(patches.device).clone()
        known = torch.isin(keys, torch.tensor(list(self.memory), device=keys.device))
        if not bool(known.all()):
            vectors = self.mbatch.vector
            keys[~known] = self.route(patches[~known], None if vectors is None else vectors[~known])
        return self._judged_by(patches, keys)


def entries_each(
    setting: str, budget: int, banks: int, entry: int, fixed: int = 0, what: str = "patch"
) -> int:
    """Divide a memory budget equally among banks.

    Args:
        setting: Card key of the budget, for the error message.
        budget: Bytes of all banks together.
        banks: Number of banks.
        entry: Bytes of one entry, such as a patch.
        fixed: Bytes of a bank besides its entries.
        what: What an entry is, for the error message.

    Returns:
        The maximum number of entries per bank, at least one.

    Raises:
        InputError: The budget cannot hold one entry per bank.
    """
    most = (budget // banks - fixed) // entry
    if most < 1:
        raise InputError(
            f"{setting}: {budget} bytes hold no {what} for each of {banks} bank(s), which takes "
            f"{entry + fixed} bytes, so give at least {banks * (entry + fixed)}"
        )
    return most


def patch_rows(patches: Tensor) -> Tensor:
    """Reshape patches [B, C, h, w] to rows [B * h * w, C]."""
    return patches.permute(0, 2, 3, 1).flatten(0, 2)


def blur(maps: Tensor, sigma: float, radius: int | None = None) -> Tensor:
    """Apply a Gaussian blur with mirrored borders.

    Args:
        maps: [B, S, S].
        sigma: Standard deviation in pixels; 0 returns ``maps``.
        radius: Truncation radius in pixels; None for four standard deviations.

    Returns:
        The smoothed maps [B, S, S].
    """
    if sigma == 0:
        return maps
    radius = min(int(4 * sigma + 0.5) if radius is None else radius, maps.shape[-1] - 1)
    grid = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (grid / sigma).square())
    kernel = (kernel / kernel.sum())[None, None]
    padded = F.pad(maps[:, None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel[..., None, :]), kernel[..., None])[:, 0]
