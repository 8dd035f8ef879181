"""UniAD's encoder and decoder (post-norm), over tokens [B, L, E].

Module names are those of the public UniAD and IUF checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention


class EncoderLayer(nn.Module):
    """Self-attention and a two-layer ReLU MLP, each followed by a residual sum and LayerNorm."""

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(channels, heads, dropout)
        self.linear1 = nn.Linear(channels, feedforward)
        self.linear2 = nn.Linear(feedforward, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, position: Tensor, guide: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``guide`` [B, L, E] multiplies the query only (object-aware self-attention, IUF, ECCV 2024)."""
        query = None if guide is None else (x + position) * guide
        x = self.norm1(x + self.dropout(self.self_attn(x, position, query=query, mask=mask)))
        hidden = self.dropout(F.relu(self.linear1(x), inplace=True))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class DecoderLayer(nn.Module):
    """A learned query per token attends to the encoder output, then to the previous layer's output.

    The queries do not attend to each other, and the previous layer's output enters only as keys and values of
    the second attention: this makes it hard to copy a defect through the decoder (UniAD).
    """

    def __init__(self, tokens: int, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.learned_embed = nn.Embedding(tokens, channels)
        self.self_attn = Attention(channels, heads, dropout)
        self.multihead_attn = Attention(channels, heads, dropout)
        self.linear1 = nn.Linear(channels, feedforward)
        self.linear2 = nn.Linear(feedforward, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        previous: Tensor,
        memory: Tensor,
        position: Tensor,
        memory_mask: Tensor | None = None,
        previous_mask: Tensor | None = None,
    ) -> Tensor:
        """``previous`` and ``memory`` (the encoder output) are [B, L, E]; returns [B, L, E]."""
        table = self.learned_embed.weight[None]
        looked = self.self_attn(memory, position, query=table + position, mask=memory_mask)
        x = self.norm1(table + self.dropout(looked))
        looked = self.multihead_attn(previous, position, query=x + position, mask=previous_mask)
        x = self.norm2(x + self.dropout(looked))
        hidden = self.dropout(F.relu(self.linear1(x), inplace=True))
        return self.norm3(x + self.dropout(self.linear2(hidden)))


class Encoder(nn.Module):
    """``depth`` encoder layers, without a final norm."""

    def __init__(self, depth: int, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, feedforward, dropout) for _ in range(depth))

    def forward(
        self, x: Tensor, position: Tensor, guides: Sequence[Tensor] | None, mask: Tensor | None
    ) -> Tensor:
        """``guides``: one [B, L, E] per layer, or None."""
        for i, layer in enumerate(self.layers):
            x = layer(x, position, None if guides is None else guides[i], mask)
        return x


class Decoder(nn.Module):
    """``depth`` decoder layers and one LayerNorm they share."""

    def __init__(
        self, depth: int, tokens: int, channels: int, heads: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(tokens, channels, heads, feedforward, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(
        self,
        memory: Tensor,
        position: Tensor,
        memory_mask: Tensor | None,
        previous_mask: Tensor | None,
    ) -> list[Tensor]:
        """Every layer's output after the shared LayerNorm: ``depth`` times [B, L, E]."""
        x, outputs = memory, []
        for layer in self.layers:
            x = layer(x, memory, position, memory_mask, previous_mask)
            outputs.append(self.norm(x))
        return outputs


class Transformer(nn.Module):
    """Encoder and decoder; ``forward`` returns the decoder layers' normalised outputs."""

    def __init__(
        self,
        tokens: int,
        channels: int,
        heads: int,
        feedforward: int,
        encoder_layers: int,
        decoder_layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(encoder_layers, channels, heads, feedforward, dropout)
        self.decoder = Decoder(decoder_layers, tokens, channels, heads, feedforward, dropout)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        guides: Sequence[Tensor] | None = None,
        masks: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None),
    ) -> list[Tensor]:
        """``masks``: of the encoder, of the decoder's first and of its second attention."""
        memory = self.encoder(x, position, guides, masks[0])
        return self.decoder(memory, position, masks[1], masks[2])
