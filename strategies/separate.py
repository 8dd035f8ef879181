"""An upper bound: a separate network per object, with known objects of test images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from iufbench.data.resident import Batch, ResidentData
from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.context import Uses
from iufbench.models.uniad import Reconstruction, UniAD
from iufbench.support.seeding import derive


class ObjectBatches:
    """Mini-batches of one object each, reshuffled every epoch."""

    def __init__(self, data: ResidentData, batch_size: int, generator: torch.Generator) -> None:
        self.data, self.batch_size, self.generator = data, batch_size, generator
        self._members = [torch.nonzero(data.objects == o)[:, 0] for o in data.objects.unique()]

    def __len__(self) -> int:
        return sum(-(-len(m) // self.batch_size) for m in self._members)

    def __iter__(self) -> Iterator[Batch]:
        parts: list[Tensor] = []
        for members in self._members:
            order = torch.randperm(len(members), generator=self.generator)
            parts += members[order].split(self.batch_size)
        for index in torch.randperm(len(parts), generator=self.generator).tolist():
            yield self.data.batch(parts[index])


class SeparateNetworks(nn.Module):
    """``networks[str(object id)]`` reconstructs that object; an object without one uses the newest."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.ModuleDict()

    def forward(self, features: Tensor, objects: Tensor) -> Reconstruction:
        """Reconstruct features [B, C, h, w] of objects [B], each with its own network."""
        reconstruction, target = torch.empty_like(features), torch.empty_like(features)
        for number in objects.unique().tolist():
            own = objects == number
            name = str(number) if str(number) in self.networks else list(self.networks)[-1]
            output = self.networks[name](features[own])
            reconstruction[own], target[own] = output.reconstruction, output.target
        return Reconstruction(reconstruction, target)


class Separate(ReconstructionStrategy):
    """One UniAD per object, trained on that object alone with the card's schedule.

    The networks of an experience share one optimiser and alternate batch by batch: a batch updates only the
    network of its object (the others have no gradient), so each is trained as if it were alone; only a
    warm-up counts the iterations of all of them. Initial weights depend on the seed and the object's number,
    not on previous training.
    """

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, object_id_at_test=True)
    not_captured: ClassVar[str | None] = "which network learns is decided batch by batch"

    def build_network(self) -> nn.Module:
        networks = SeparateNetworks()
        networks.networks["0"] = self._network(0)
        return networks

    def _network(self, number: int) -> UniAD:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.context.seeds.initialisation, "object", number))
            return UniAD(**self.network_arguments())

    def fit_standardisation(self) -> None:
        """Nothing yet: every network takes the statistics of its own object (``adapt_network``)."""

    def adapt_network(self) -> None:
        self.model.requires_grad_(False)
        data = self.experience.resident
        for number in data.objects.unique().tolist():
            network = self._network(number)
            if self.recipe.network.standardise:
                network.fit_standardisation(data.features[data.objects == number])
            self.model.networks[str(number)] = network

    def restore(self, state: dict[str, Any]) -> None:
        for name in state["network"]:
            number = name.split(".")[1]
            if number not in self.model.networks:
                self.model.networks[number] = self._network(int(number))
        super().restore(state)

    def training_batches(self, generator: torch.Generator) -> ObjectBatches:
        return ObjectBatches(self.experience.resident, self.train_mb_size, generator)

    def forward(self) -> Reconstruction:
        return self.network(self.mbatch.x, self.mbatch.objects)
