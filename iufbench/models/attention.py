"""Multi-head attention with the parameter layout of ``torch.nn.MultiheadAttention``, and neighbour masks.

Why not ``nn.MultiheadAttention``: in UniAD's layers the position is added to queries and keys but not to
values, so that module would project three different inputs. Here one matrix product gives all of them,
because ``(x + p) W = x W + p W`` and ``p`` is the same for every image.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iufbench.support.errors import InputError

from .dropout import Survivors, chosen_here, draw

_CACHED_WEIGHTS = 2**19  # 2 MB, which a core keeps at hand; 2^17 to 2^20 are within 3 %


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
    """softmax(q k^T / sqrt(E / heads)) v of tokens [B, L, E]; heads are contiguous channel groups.

    ``mask``: bool [L, L], True = may attend. On the CPU torch has no fused kernel with dropout, so that
    ``WithDropout`` does it there.
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    if dropout and chosen_here(q):
        survivors = draw(torch.Size((*q.shape[:3], k.shape[2])), dropout)
        out = WithDropout.apply(q, k, v, mask, survivors)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return out.transpose(1, 2).flatten(2)


class WithDropout(torch.autograd.Function):
    """Attention of [B, H, L, D] with dropout on its weights, a few images at a time.

    The weights of a whole batch (30 MB for 24 images of 196 tokens and 8 heads) pass through a dozen steps,
    forward and backward; those of one image stay in a core's cache meanwhile. Operations and their order
    are those that autograd would carry out on the whole batch, and so are the results. Under autocast it
    stays in float32.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, survivors: Survivors
    ) -> Tensor:
        scale = q.shape[-1] ** -0.5
        bias = None if mask is None else torch.where(mask, 0.0, -torch.inf)
        weights, out = q.new_empty(survivors.numbers.shape), _heads_inside(q)
        parts = _parts(weights)
        for part in parts:
            logits = (q[part] * scale) @ k[part].transpose(-2, -1)
            if bias is not None:
                logits += bias
            torch.softmax(logits, dim=-1, out=weights[part])
            out[part] = survivors.factors(q.dtype, part).mul_(weights[part]) @ v[part]
        ctx.save_for_backward(q, k, v, weights)
        ctx.survivors, ctx.scale, ctx.parts = survivors, scale, parts
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        to_q, to_k, to_v = (_heads_inside(t) for t in (q, k, v))
        for part in ctx.parts:
            factors = ctx.survivors.factors(q.dtype, part)
            to_weights = (gradient[part] @ v[part].transpose(-2, -1)).mul_(factors)
            to_v[part] = factors.mul_(weights[part]).transpose(-2, -1) @ gradient[part]
            to_logits = torch._softmax_backward_data(to_weights, weights[part], -1, q.dtype)
            to_q[part] = (to_logits @ k[part]).mul_(ctx.scale)
            to_k[part] = to_logits.transpose(-2, -1) @ (q[part] * ctx.scale)
        return to_q, to_k, to_v, None, None


def _heads_inside(like: Tensor) -> Tensor:
    """Empty [B, H, L, D] whose memory lies as [B, L, H, D], so that joining the heads costs nothing."""
    b, h, n, d = like.shape
    return like.new_empty(b, n, h, d).transpose(1, 2)


def _parts(weights: Tensor) -> list[slice]:
    """As many images at a time as have ``_CACHED_WEIGHTS`` between them, at least one."""
    step = max(1, _CACHED_WEIGHTS // weights[0].numel())
    return [slice(i, i + step) for i in range(0, len(weights), step)]


def neighbour_mask(feature_size: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """Who may attend to whom on a token grid: bool [L, L], row = query, column = key, True = allowed.

    A token may not see the keys at most ``window // 2`` rows and columns away, itself included (UniAD,
    NeurIPS 2022): otherwise it could copy its own input and a defect would be reconstructed too. An even
    window therefore acts like the next odd one. Raises InputError when a token could see nothing at all.
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
