"""Base classes for learners with a rehearsal memory, which is updated after every experience."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.buffer import Memory, first_of_each, joined, rows, selected, shares
from iufbench.learning.context import Uses
from iufbench.models.uniad import Reconstruction
from iufbench.support.seeding import derive

OBJECT_BYTES = 8  # an object id is int64


class Rehearsal(ReconstructionStrategy):
    """Stores an equal number of images per object within ``options.memory`` (a BalancedBudget).

    ``replayed_images`` counts with repetition: an old image that is replayed five times counts as five.
    """

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, stored_images=True)
    carried: ClassVar[tuple[str, ...]] = ("memory",)
    within: ClassVar[tuple[str, ...]] = ("draws",)
    maps_per_image: ClassVar[int] = 0  # tensors of the features' shape stored with each image

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.memory: Memory = {}
        self.capacity: int | None = self.options.memory.capacity(self.image_bytes)
        self._generator = torch.Generator()

    @classmethod
    def guide_size(cls, options: Any, image_size: int) -> int | None:
        return image_size if options.memory.store == "images" else None

    @property
    def precision(self) -> torch.dtype:
        return getattr(torch, self.options.memory.precision)

    @property
    def image_bytes(self) -> int:
        """Size of one stored image in bytes."""
        features = self.context.channels * math.prod(self.context.feature_size) * self.precision.itemsize
        image = 3 * self.recipe.image_size**2 if self.options.memory.store == "images" else features
        label = OBJECT_BYTES if self.uses.object_id_at_training else 0
        return image + self.maps_per_image * features + label

    def _before_training_exp(self, **kwargs: Any) -> None:
        self.limits()  # reports a budget that is too small before training
        seed = derive(self.context.seeds.memory, "draw", self.experience.current_experience)
        self._generator = torch.Generator().manual_seed(seed)
        super()._before_training_exp(**kwargs)

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.remember()
        super()._after_training_exp(**kwargs)

    # What is kept ----------------------------------------------------------------------------------

    def limits(self) -> dict[int, int | None]:
        """Maximum number of images of each object seen so far, including those of this experience."""
        new = self.experience.resident.objects.unique().tolist()
        old = self.memory["objects"].unique().tolist() if self.memory else []
        objects = sorted({*old, *new})
        return shares(objects, self.capacity, self.options.memory.per_object)

    def remember(self) -> None:
        """Reduce the old objects to the new limits and add images of the new objects."""
        limits, data = self.limits(), self.experience.resident
        order = self.preference()
        chosen = order[first_of_each(data.objects[order], limits)]
        memory = joined(self.memory, self.columns(chosen))
        self.memory = selected(memory, first_of_each(memory["objects"], limits))

    def preference(self) -> Tensor:
        """Indices [N] of the experience's images in order of preference; here in random order."""
        seed = derive(self.context.seeds.memory, "keep", self.experience.current_experience)
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.experience.resident), generator=generator)

    def columns(self, chosen: Tensor) -> Memory:
        """The memory columns of the images with indices ``chosen`` [n]."""
        data = self.experience.resident
        if self.options.memory.store == "images":
            stored = {"images": data.guide[chosen]}
        else:
            stored = {"features": data.features[chosen].to(self.precision)}
        return {**stored, "objects": data.objects[chosen]} if self.uses.object_id_at_training else stored

    @torch.no_grad()
    def outputs(self, chosen: Tensor) -> list[Reconstruction]:
        """The network's outputs for images of this experience in evaluation mode, one per batch."""
        self.model.eval()
        batches = [self.experience.resident.batch(part) for part in chosen.split(self.eval_mb_size)]
        found = [self.model(batch.to(self.device).x) for batch in batches]
        self.model.train()
        return found

    # What is shown again ---------------------------------------------------------------------------

    def _unpack_minibatch(self) -> None:
        super()._unpack_minibatch()
        if self.is_training and self.memory:
            self.mbatch.old = self.shown_again()

    def shown_again(self) -> Memory:
        """The old images replayed with the new images of the current mini-batch."""
        return self.draw(len(self.mbatch))

    @property
    def draws(self) -> Tensor:
        """The state of the generator that draws old images, for checkpoints."""
        return self._generator.get_state()

    @draws.setter
    def draws(self, state: Tensor) -> None:
        self._generator.set_state(state.cpu())

    def draw(self, new_images: int) -> Memory:
        """Draw rows without replacement for one iteration with ``new_images`` new images.

        Returns:
            The rows, floating-point columns as float32, on the device. They have ``features`` even if images
            are stored.
        """
        count = self.options.memory.batch or new_images
        index = torch.randperm(rows(self.memory), generator=self._generator)[:count]
        self.replayed_images += len(index)
        drawn = selected(self.memory, index)
        if "images" in drawn:
            drawn["features"] = self.context.encode(drawn.pop("images"))
        return {n: (t.float() if t.is_floating_point() else t).to(self.device) for n, t in drawn.items()}


class JointRehearsal(Rehearsal):
    """Appends old images to every mini-batch of new ones; the loss is averaged over both."""

    def forward(self) -> Reconstruction:
        x, old = self.mbatch.x, self.mbatch.old
        return self.network(torch.cat([x, old["features"]]) if old else x)
