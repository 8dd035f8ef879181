"""Input subspaces of a network's linear maps, and projection of updates onto their orthogonal complement.

A site is one linear map: a weight [out, in] and its bias, or the rows of a stacked weight that belong to one
map (query, key or value of an attention). A 1 is appended to inputs, so that the bias is one more column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from iufbench.models.attention import Attention


@dataclass(frozen=True)
class Site:
    """``weight`` and ``bias`` are parameter names; rows ``start`` to ``stop`` belong to the map."""

    weight: str
    bias: str
    start: int
    stop: int


def linear_sites(model: nn.Module) -> dict[str, Site]:
    """All linear maps of the network by name; attention has one each for query, key and value."""
    found = {}
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            found[name] = Site(f"{name}.weight", f"{name}.bias", 0, part.out_features)
        elif isinstance(part, Attention):
            size = part.channels
            for place, role in enumerate(("query", "key", "value")):
                rows = (place * size, (place + 1) * size)
                found[f"{name}.{role}"] = Site(f"{name}.in_proj_weight", f"{name}.in_proj_bias", *rows)
    return found


@contextmanager
def watched_inputs(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Context manager that accumulates second moments of the inputs of each site over forward passes.

    Args:
        model: The network.

    Yields:
        Site -> x^T x, float64 [in + 1, in + 1], of the inputs with a 1 appended.
    """
    moments: dict[str, Tensor] = {}

    def add(site: str, x: Tensor) -> None:
        rows = completed(x.detach().flatten(0, -2)).double()
        moments[site] = moments.get(site, 0) + rows.T @ rows

    def of_linear(name: str) -> Any:
        return lambda part, args: add(name, args[0])

    def of_attention(name: str) -> Any:
        def hook(part: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            memory, position = args
            query = kwargs.get("query")
            add(f"{name}.query", memory + position if query is None else query)
            add(f"{name}.key", memory + position)
            add(f"{name}.value", memory)

        return hook

    handles = []
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            handles.append(part.register_forward_pre_hook(of_linear(name)))
        elif isinstance(part, Attention):
            handles.append(part.register_forward_pre_hook(of_attention(name), with_kwargs=True))
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()


def completed(x: Tensor) -> Tensor:
    """Append a column of ones for the bias: [N, d] to [N, d + 1]."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


def grown_basis(basis: Tensor | None, moment: Tensor, energy: float) -> Tensor:
    """Extend an orthonormal basis until it captures a fraction of the energy of inputs.

    The strongest directions of the residual are added until ||captured||^2 >= energy * ||inputs||^2
    (Saha et al., ICLR 2021, equations 8 and 9).

    Args:
        basis: The old basis [d, k], which is kept; None if there is none.
        moment: x^T x of the inputs, [d, d].
        energy: Fraction in [0, 1].

    Returns:
        The extended basis [d, k'], float32.
    """
    size = len(moment)
    old = moment.new_zeros(size, 0) if basis is None else basis.to(moment)
    total = moment.trace()
    rest = torch.eye(size, dtype=moment.dtype, device=moment.device) - old @ old.T
    left = rest @ moment @ rest
    values, vectors = torch.linalg.eigh((left + left.T) / 2)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    captured = total - left.trace() + torch.cat([values.new_zeros(1), values.cumsum(0)])
    # Tolerance for rounding: an energy of 1 must not add directions without any input.
    missing = captured < energy * total - 1e-9 * total
    added = vectors[:, : int(missing.sum())]
    both = torch.linalg.qr(torch.cat([old, added], dim=1)).Q if added.shape[1] else old
    return both[:, :size].float()


@torch.no_grad()
def project_(tensors: Mapping[str, Tensor], sites: Mapping[str, Site], bases: Mapping[str, Tensor]) -> None:
    """Remove, in place, the part of gradients or updates that changes outputs for inputs in the subspaces.

    At every site with a basis M: [W | b] <- [W | b] - [W | b] M M^T.

    Args:
        tensors: Gradients or updates, by parameter name.
        sites: Linear maps, by site name.
        bases: Orthonormal bases M [in + 1, k], by site name.
    """
    for name, basis in bases.items():
        site = sites[name]
        weight = tensors[site.weight][site.start : site.stop]
        bias = tensors[site.bias][site.start : site.stop]
        both = torch.cat([weight, bias[:, None]], dim=1)
        basis = basis.to(both)
        both -= (both @ basis) @ basis.T
        weight.copy_(both[:, :-1])
        bias.copy_(both[:, -1])
