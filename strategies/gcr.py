"""GCR (Chae, "Geometry-consistent routing", arXiv 2601.01856): per-object prototypes, routing by geometry.

An image is routed to the object whose prototypes are nearest to its patches; its score is a soft distance to
that object's nearest prototypes. Nothing is trained, so all forgetting is due to wrong routing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from iufbench.learning.context import Uses
from iufbench.learning.memory_bank import Patches, patch_rows
from iufbench.learning.prototypes import Prototypes
from iufbench.metrics.image import image_score
from iufbench.models.neighbours import nearest, squared_distances
from iufbench.support.fields import number
from iufbench.support.seeding import derive


@dataclass(frozen=True)
class Geometry:
    """``prototypes`` per object; ``neighbours`` in the soft distance; ``tokens``: number of tokens per image
    used for routing, drawn once from the seed (None: all). ``router``: ``distance``, the summed squared
    distance of the tokens to their nearest prototypes; ``score``, the head with the lowest anomaly score;
    ``budget_bytes``: budget for the prototypes of all objects, in equal shares."""

    prototypes: int = number(196, at_least=1)
    neighbours: int = number(16, at_least=1)
    tokens: int | None = number(None, at_least=1)
    router: Literal["distance", "score"] = "distance"
    budget_bytes: int = number(32 * 2**20, at_least=1)


class GCR(Prototypes):
    @dataclass(frozen=True)
    class Options:
        patches: Patches = field(default_factory=Patches)
        gcr: Geometry = field(default_factory=Geometry)

    @property
    def size(self) -> int:
        return self.options.gcr.prototypes

    @property
    def budget(self) -> tuple[str, int]:
        return "gcr.budget_bytes", self.options.gcr.budget_bytes

    def route(self, patches: Tensor, vectors: Tensor | None) -> Tensor:
        if self.options.gcr.router == "score":
            return self._least_anomalous(patches)
        rows = self._looked_at(patches)
        images, tokens = rows.shape[:2]
        costs = {
            key: nearest(rows.flatten(0, 1), parts["bank"])[0].square().view(images, tokens).sum(dim=1)
            for key, parts in self.memory.items()
        }
        return self.nearest_key(costs)

    def _looked_at(self, patches: Tensor) -> Tensor:
        """[B, n, C]: the tokens used for routing, at the same positions in every image."""
        tokens = patches.flatten(2).transpose(1, 2)
        count = self.options.gcr.tokens
        if count is None or count >= tokens.shape[1]:
            return tokens
        seed = derive(self.context.seeds.memory, "routing tokens")
        order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(seed))
        return tokens[:, order[:count].to(tokens.device)]

    def _least_anomalous(self, patches: Tensor) -> Tensor:
        costs = {}
        for key in self.memory:
            maps = self.to_maps(self.distances(key, patches)).cpu().numpy()
            costs[key] = torch.from_numpy(image_score(maps, self.recipe.score)).to(self.device)
        return self.nearest_key(costs)

    def distances(self, key: int, patches: Tensor) -> Tensor:
        """-log sum over the nearest prototypes of exp(-||q - mu||^2 / 2)."""
        bank = self.memory[key]["bank"]
        squared = squared_distances(patch_rows(patches), bank, self.options.gcr.neighbours)
        return -torch.logsumexp(-squared / 2, dim=1).view(len(patches), *patches.shape[2:])


class GCROracle(GCR):
    """GCR with known objects of test images; the difference from it is the cost of wrong routing."""

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, object_id_at_test=True, gradients=False)
