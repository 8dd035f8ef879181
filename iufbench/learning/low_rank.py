"""Low-rank weight updates per increment, in directions that earlier experiences have not used.

After the base experience the network is frozen. Every later one learns W + B A for each weight W [out, in],
with A [rank, in] kept orthogonal to the old span: the inputs of W in the base experience (up to the fraction
``energy``) and the A of all earlier increments. The output for an input inside the old span does not change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.subspaces import grown_basis, linear_sites, watched_inputs
from iufbench.support.fields import number
from iufbench.support.seeding import derive


@dataclass(frozen=True)
class Adapters:
    """``rank``: rank of each weight update; ``energy``: fraction of the squared norm of the base experience's
    inputs that is protected; ``samples``: number of images used to estimate it (all if there are fewer)."""

    rank: int = number(8, at_least=1)
    energy: float = number(0.95, at_least=0, at_most=1)
    samples: int = number(128, at_least=1)


class LowRank(nn.Module):
    """The parametrisation W -> W + B A (I - S S^T) with orthonormal ``span`` S [in, k]; B starts at zero."""

    span: Tensor

    def __init__(self, weight: Tensor, rank: int, span: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        start = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        self.a = nn.Parameter(start.to(weight))
        self.b = nn.Parameter(weight.new_zeros(outputs, rank))
        self.register_buffer("span", span.to(weight))

    def rows(self) -> Tensor:
        """A with its component in the span removed, [rank, in]."""
        return self.a - (self.a @ self.span) @ self.span.T

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.rows()


class LowRankIncrements(ReconstructionStrategy):
    """``spans``: the old span [in, k] of every adapted weight, by parameter name.

    Adapters are merged into the weights when the next experience begins: the network never grows.
    """

    @dataclass(frozen=True)
    class Options:
        lora: Adapters = field(default_factory=Adapters)

    carried: ClassVar[tuple[str, ...]] = ("spans",)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.spans: dict[str, Tensor] = {}

    # Which weights -----------------------------------------------------------------------------------

    def adapted(self) -> dict[str, tuple[nn.Module, str]]:
        """The weight matrices of all linear maps: parameter name -> (module, attribute)."""
        names = dict.fromkeys(site.weight for site in linear_sites(self.model).values())
        parts = {name: name.rpartition(".") for name in names}
        return {name: (self.model.get_submodule(path), last) for name, (path, _, last) in parts.items()}

    def adapters(self) -> dict[str, LowRank]:
        """The adapters of the current increment, by parameter name; empty in the base experience."""
        found = {}
        for name, (part, last) in self.adapted().items():
            if parametrize.is_parametrized(part, last):
                (found[name],) = part.parametrizations[last]  # type: ignore[index]
        return found

    def attach(self, seed: int, spans: dict[str, Tensor]) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, (part, last) in self.adapted().items():
            weight = getattr(part, last)
            adapter = LowRank(weight, self.options.lora.rank, spans[name], generator)
            parametrize.register_parametrization(part, last, adapter)

    def merge(self) -> None:
        """Add the adapters to the weights and remove them."""
        attached = self.adapters()
        for name, (part, last) in self.adapted().items():
            if name in attached:
                parametrize.remove_parametrizations(part, last, leave_parametrized=True)

    # When --------------------------------------------------------------------------------------------

    def adapt_network(self) -> None:
        number = self.experience.current_experience
        self.merge()
        self.model.requires_grad_(number == 0)
        if number > 0:
            self.attach(derive(self.context.seeds.initialisation, "adapters", number), self.spans)

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.spans = self._grown() if self.adapters() else self._inputs_of_the_base()
        super()._after_training_exp(**kwargs)

    @torch.no_grad()
    def _grown(self) -> dict[str, Tensor]:
        found = {}
        for name, adapter in self.adapters().items():
            both = torch.cat([self.spans[name].to(adapter.a), adapter.rows().T], dim=1)
            found[name] = torch.linalg.qr(both).Q[:, : both.shape[0]]
        return found

    @torch.no_grad()
    def _inputs_of_the_base(self) -> dict[str, Tensor]:
        data, lora = self.experience.resident, self.options.lora
        seed = derive(self.context.seeds.memory, "adapters", 0)
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        was_training = self.model.training
        self.model.eval()
        with watched_inputs(self.model) as moments:
            for index in order[: lora.samples].split(self.eval_mb_size):
                self.model(data.batch(index).to(self.device).x)
        self.model.train(was_training)
        sums: dict[str, Tensor] = {}
        for site, place in linear_sites(self.model).items():
            inputs = moments[site][:-1, :-1]  # without the column of the bias, which increments leave alone
            sums[place.weight] = sums[place.weight] + inputs if place.weight in sums else inputs
        return {name: grown_basis(None, moment, lora.energy) for name, moment in sums.items()}

    def restore(self, state: dict[str, Any]) -> None:
        self.merge()
        spans = {
            name.replace(".parametrizations.", ".").removesuffix(".0.span"): span
            for name, span in state["network"].items()
            if name.endswith(".0.span")
        }
        if spans:
            self.attach(0, spans)  # their values come with the state
        super().restore(state)
