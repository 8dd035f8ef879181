"""INP-Former: an image's own normal prototypes guide the reconstruction of its features.

Luo et al., "Exploring Intrinsic Normal Prototypes within a Single Image for Universal Anomaly Detection",
CVPR 2025 (arXiv 2503.02424). Written from the method's description; the bottleneck, groups and loss are
Dinomaly's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dinomaly import Dinomaly, initialise


class CrossAttention(nn.Module):
    """Multi-head attention of queries [B, Q, ``channels``] over tokens [B, L, ``width``].

    The weights are a softmax over the tokens or, with ``relu``, the positive part of the cosine of query and
    key times a learnt factor per head: tokens that do not match a query contribute nothing.
    """

    def __init__(self, channels: int, width: int, hidden: int, heads: int, relu: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, hidden)
        self.key_value = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.ones(heads, 1, 1)) if relu else None

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        q = self.query(queries).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.scale is None:
            found = F.scaled_dot_product_attention(q, k, v)
        else:
            cosine = F.normalize(q, dim=3) @ F.normalize(k, dim=3).transpose(2, 3)
            found = F.relu(self.scale * cosine) @ v
        return self.out(found.transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """attention(norm(queries), norm(tokens)), plus the queries if ``residual``; then x + MLP(norm(x))."""

    def __init__(
        self, channels: int, width: int, hidden: int, heads: int, feedforward: int, residual: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=1e-8), nn.LayerNorm(channels, eps=1e-8)
        self.norm_tokens = nn.LayerNorm(width, eps=1e-8)
        self.attention = CrossAttention(channels, width, hidden, heads, relu=not residual)
        self.linear1 = nn.Linear(channels, feedforward)
        self.linear2 = nn.Linear(feedforward, channels)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        found = self.attention(self.norm1(queries), self.norm_tokens(tokens))
        x = queries + found if self.residual else found
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class InpFormer(Dinomaly):
    """The trainable part.

    Args:
        groups: As for ``Dinomaly``.
        prototypes: Number of learnable tokens that become an image's prototypes.
        **settings: As for ``Dinomaly``.

    ``prototypes`` learnable tokens attend to the frozen features of an image (the bottleneck's input) and
    become its intrinsic normal prototypes. The decoder's layers attend from patches to prototypes, without a
    residual connection, so that a patch is rebuilt from the prototypes alone.
    """

    def __init__(self, groups: Sequence[int], prototypes: int = 6, **settings: Any) -> None:
        super().__init__(groups, **settings)
        inputs, hidden, heads, feedforward = self.sizes
        self.tokens = nn.Parameter(torch.randn(prototypes, inputs))
        self.extractor = CrossBlock(inputs, inputs, hidden, heads, feedforward, residual=True)
        self.decoder = nn.ModuleList(
            CrossBlock(hidden, inputs, hidden, heads, feedforward, residual=False) for _ in self.decoder
        )
        initialise(self.extractor)
        initialise(self.decoder)

    def decode(self, x: Tensor, tokens: Tensor) -> tuple[list[Tensor], Tensor | None]:
        prototypes = self.extractor(self.tokens.expand(len(tokens), -1, -1), tokens)
        outputs = []
        for block in self.decoder:
            x = block(x, prototypes)
            outputs.append(x)
        return outputs, incoherence(tokens, prototypes)


def incoherence(patches: Tensor, prototypes: Tensor) -> Tensor:
    """Distance of every patch to the nearest prototype of its image.

    Args:
        patches: [B, L, C].
        prototypes: [B, M, C].

    Returns:
        1 - cosine, [B, L], in [0, 2]; the mean is the coherence loss.
    """
    cosine = F.normalize(patches, dim=2) @ F.normalize(prototypes, dim=2).transpose(1, 2)
    return 1 - cosine.amax(dim=2)
