"""UniAD with learned keys and biases in the encoder's attention, as in the Lifelong Vision Transformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iufbench.models.attention import attend
from iufbench.models.uniad import UniAD, initialise


class InterTaskAttention(nn.Module):
    """softmax(q(x) K^T / sqrt(d) + B) v(x); K [L, E] and B [heads, L, L] are learned, not computed from x.

    Where a token attends is thus stored in two tensors that can be regularised; only the query and the value
    depend on the image. Queries include the position, values do not, as in UniAD's encoder.
    """

    def __init__(self, tokens: int, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.to_query = nn.Linear(channels, channels)
        self.to_value = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        self.key = nn.Parameter(torch.randn(tokens, channels))  # the size of a computed key
        self.bias = nn.Parameter(torch.zeros(heads, tokens, tokens))

    def forward(
        self, memory: Tensor, position: Tensor, query: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map ``memory`` [B, L, E] to [B, L, E]; arguments as for ``iufbench.models.attention.Attention``."""
        q = self.to_query(memory + position if query is None else query)
        key = self.key.expand(len(memory), -1, -1)
        bias = self.bias if mask is None else self.bias.masked_fill(~mask, float("-inf"))
        dropout = self.dropout if self.training else 0.0
        looked = attend(q, key, self.to_value(memory), self.heads, mask=bias[None], dropout=dropout)
        return self.out_proj(looked)


class InterTaskUniAD(UniAD):
    """UniAD with inter-task attention in every encoder layer; the decoder is UniAD's.

    The decoder keeps its computed keys: its queries are learned, so with learned keys its attention would not
    depend on the input.
    """

    def __init__(self, channels: int, hidden: int, heads: int, dropout: float, **arguments: Any) -> None:
        super().__init__(channels, hidden=hidden, heads=heads, dropout=dropout, **arguments)
        tokens = self.feature_size[0] * self.feature_size[1]
        for layer in self.transformer.encoder.layers:
            layer.self_attn = InterTaskAttention(tokens, hidden, heads, dropout)
            initialise(layer.self_attn)

    def stored_attention(self) -> dict[str, nn.Parameter]:
        """The learned keys and biases by parameter name."""
        prefix = "transformer.encoder.layers"
        layers = enumerate(self.transformer.encoder.layers)
        return {
            f"{prefix}.{i}.self_attn.{n}": getattr(la.self_attn, n)
            for i, la in layers
            for n in ("key", "bias")
        }
