"""Multi-head attention with the parameter layout of ``torch.nn.MultiheadAttention``, and neighbour masks.

In UniAD's layers the position is added to queries and keys but not to values, so ``nn.MultiheadAttention``
would project three different inputs. Here a single matrix product computes all of them, because
``(x + p) W = x W + p W`` and ``p`` is the same for every image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iufbench.support.errors import InputError


class Attention(nn.Module):
    """Attention over tokens ``[B, L, E]``; key = memory + position, value = memory.

    ``in_proj_weight`` [3E, E] holds the query, key and value projections in this order, as in
    ``nn.MultiheadAttention``. Dropout acts on the attention weights, in training only.
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(f"hidden: {channels} channels do not divide into {heads} heads")
        self.channels = channels
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self, memory: Tensor, position: Tensor, query: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Attend to ``memory`` [B, L, E] and return [B, L, E].

        ``position`` is [L, E]. ``query`` is [B, L, E] or [1, L, E] (the same for every image), its position
        already added; None means memory + position. ``mask`` is bool [L, L], True = may attend.
        """
        e, weight, bias = self.channels, self.in_proj_weight, self.in_proj_bias
        if query is None:
            q, k, v = F.linear(memory, weight, bias).chunk(3, dim=-1)
            shift_q, shift_k = F.linear(position, weight[: 2 * e]).chunk(2, dim=-1)
            q, k = q + shift_q, k + shift_k
        else:
            q = F.linear(query, weight[:e], bias[:e]).expand(memory.shape[0], -1, -1)
            k, v = F.linear(memory, weight[e:], bias[e:]).chunk(2, dim=-1)
            k = k + F.linear(position, weight[e : 2 * e])
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(attend(q, k, v, self.heads, mask=mask, dropout=dropout))


def attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """softmax(q k^T / sqrt(E / heads)) v, with heads as contiguous channel groups.

    Args:
        q: Queries [B, L, E].
        k: Keys [B, L, E].
        v: Values [B, L, E].
        heads: Number of heads; divides E.
        mask: bool [L, L], True = may attend, or a float bias that broadcasts to [B, heads, L, L].
        dropout: Dropout of the attention weights.

    Returns:
        [B, L, E].
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return out.transpose(1, 2).flatten(2)


def neighbour_mask(feature_size: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """The neighbour mask of a token grid (UniAD, NeurIPS 2022).

    A token does not attend to keys at most ``window // 2`` rows and columns away, itself included: otherwise
    it could copy its own input and a defect would be reconstructed too. An even window therefore acts like
    the next odd one.

    Args:
        feature_size: (height, width) of the grid.
        window: (height, width) of the hidden neighbourhood.

    Returns:
        bool [L, L], row = query, column = key, True = may attend.

    Raises:
        InputError: A token could not attend to anything.
    """
    height, width = feature_size
    if min(window) < 1:
        raise InputError(f"neighbour_mask: {window} must be two positive sizes")
    y, x = torch.arange(height), torch.arange(width)
    near_y = (y[:, None] - y[None, :]).abs() <= window[0] // 2
    near_x = (x[:, None] - x[None, :]).abs() <= window[1] // 2
    blocked = (near_y[:, None, :, None] & near_x[None, :, None, :]).reshape(height * width, height * width)
    if blocked.all(dim=1).any():
        raise InputError(
            f"neighbour_mask: a {window[0]}x{window[1]} window hides the whole {height}x{width} grid from "
            "some token; choose a smaller window or larger images"
        )
    return ~blocked
