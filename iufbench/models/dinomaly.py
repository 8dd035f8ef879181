"""Dinomaly: a decoder with linear attention behind a noisy bottleneck reconstructs groups of frozen maps.

Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection", CVPR 2025
(arXiv 2405.14325). Written from the method's description.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iufbench.support.errors import InputError

from .uniad import Reconstruction, channel_statistics, matrix_products


class LinearAttention(nn.Module):
    """Attention whose cost is linear in the tokens: phi(q) (phi(k)^T v) / (phi(q) sum phi(k)), phi = ELU + 1.

    It cannot focus on a single token, which is intended: a decoder that copies tokens reconstructs anomalies
    too.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] of tokens [B, L, C]."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        total = (q @ k.sum(dim=2).unsqueeze(3)).clamp_min(1e-6)
        return self.out((q @ (k.transpose(2, 3) @ v) / total).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, channels: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=1e-8), nn.LayerNorm(channels, eps=1e-8)
        self.attention = LinearAttention(channels, heads)
        self.linear1 = nn.Linear(channels, feedforward)
        self.linear2 = nn.Linear(feedforward, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class Dinomaly(nn.Module):
    """The trainable part: bottleneck and decoder.

    The input is the mean of all groups if each has ``hidden`` channels, as published, and reconstructions are
    compared with the groups directly. For other backbones the input is all channels stacked, and one linear
    layer per group maps back to them. The last decoder layers reconstruct the first group.

    Args:
        groups: Channels of each block of the input features; each is reconstructed as a whole.
        hidden: Width of the decoder; the bottleneck is hidden - feedforward - hidden.
        heads: Attention heads of the decoder.
        feedforward: Width of its MLPs.
        layers: Number of its layers, at least one per group.
        dropout: The noise: dropout before, between and after the bottleneck's two layers.
        standardise: Standardise every channel first (``fit_standardisation``), for convolutional features,
            whose channels differ in scale.
        precision: fp32 or bf16, of the matrix products.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        groups: Sequence[int],
        hidden: int = 768,
        heads: int = 12,
        feedforward: int = 3072,
        layers: int = 8,
        dropout: float = 0.2,
        standardise: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise InputError(f"network.hidden {hidden} must be a multiple of network.heads {heads}")
        if layers < len(groups):
            raise InputError(f"network.decoder_layers {layers} is less than the {len(groups)} groups of maps")
        self.groups, self.standardise, self.precision = tuple(groups), standardise, precision
        self.direct = all(width == hidden for width in groups)
        inputs = hidden if self.direct else sum(groups)
        self.sizes = inputs, hidden, heads, feedforward
        self.bottleneck = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(inputs, feedforward), nn.GELU(),
            nn.Dropout(dropout), nn.Linear(feedforward, hidden), nn.Dropout(dropout),
        )  # fmt: skip
        self.shares = [part.tolist() for part in torch.arange(layers).tensor_split(len(groups))]
        self.decoder = nn.ModuleList(Block(hidden, heads, feedforward) for _ in range(layers))
        self.heads = nn.ModuleList(nn.Identity() if self.direct else nn.Linear(hidden, c) for c in groups)
        self.register_buffer("feature_mean", torch.zeros(sum(groups)))
        self.register_buffer("feature_std", torch.ones(sum(groups)))
        initialise(self)

    def forward(self, features: Tensor, guide: Tensor | None = None) -> Reconstruction:
        """Reconstruct ``features`` [B, C, h, w]; the guide image is not used."""
        size = features.shape[2:]
        target = features.to(self.feature_mean.dtype)
        if self.standardise:
            target = (target - self.feature_mean[:, None, None]) / self.feature_std[:, None, None]
        maps = target.split(self.groups, dim=1)
        x = torch.stack(maps).mean(dim=0) if self.direct else target
        with matrix_products(self.precision, x.device):
            tokens = x.flatten(2).transpose(1, 2)
            outputs, incoherence = self.decode(self.bottleneck(tokens), tokens)
            outputs.reverse()
            found = [
                head(torch.stack([outputs[i] for i in part]).mean(dim=0))
                for head, part in zip(self.heads, self.shares)
            ]
        whole = torch.cat(found, dim=2).to(target.dtype).transpose(1, 2).unflatten(2, tuple(size))
        return Reconstruction(whole, target, incoherence=incoherence)

    def decode(self, x: Tensor, tokens: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Run the decoder.

        Args:
            x: Output of the bottleneck, [B, L, hidden].
            tokens: Its input, [B, L, C]; used by subclasses.

        Returns:
            The output of every layer, [B, L, hidden], and ``Reconstruction.incoherence`` of a subclass.
        """
        outputs = []
        for block in self.decoder:
            x = block(x)
            outputs.append(x)
        return outputs, None

    @torch.no_grad()
    def fit_standardisation(self, features: Tensor) -> None:
        """Set mean and standard deviation per channel from ``features`` [N, C, h, w]; call it once."""
        mean, std = channel_statistics(features)
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)


def initialise(module: nn.Module) -> None:
    """Small truncated normal weights and zero biases in every linear layer."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.01, a=-0.03, b=0.03)
            nn.init.zeros_(part.bias)


def distances(output: Reconstruction, groups: Sequence[int]) -> list[Tensor]:
    """Cosine distances [B, h, w] in [0, 2] over the channels of each group."""
    pairs = zip(output.reconstruction.split(tuple(groups), dim=1), output.target.split(tuple(groups), dim=1))
    return [1 - F.cosine_similarity(made, wanted, dim=1) for made, wanted in pairs]


def hard_mining_loss(
    output: Reconstruction, groups: Sequence[int], easy: float, factor: float = 0.1
) -> Tensor:
    """Dinomaly's loss: mean over groups and images of 1 - cosine between the flattened maps.

    Args:
        output: The reconstruction and its target.
        groups: Channels of each group.
        easy: Fraction of positions, those with the smallest distances in the batch, whose gradient is scaled.
        factor: Factor on their gradient; it does not change the value.

    Returns:
        A scalar in [0, 2].
    """
    terms = []
    pairs = zip(output.reconstruction.split(tuple(groups), dim=1), output.target.split(tuple(groups), dim=1))
    for (made, wanted), distance in zip(pairs, distances(output, groups)):
        made = scaled_gradient(made, easy_positions(distance, easy), factor)
        terms.append((1 - F.cosine_similarity(made.flatten(1), wanted.flatten(1), dim=1)).mean())
    return torch.stack(terms).mean()


@torch.no_grad()
def easy_positions(distance: Tensor, easy: float) -> Tensor:
    """bool [B, h, w]: the fraction ``easy`` of positions with the smallest distances."""
    kept = max(1, int(distance.numel() * (1 - easy)))
    return distance < distance.flatten().topk(kept).values[-1]


def scaled_gradient(x: Tensor, where: Tensor, factor: float) -> Tensor:
    """Return ``x`` [B, C, h, w] with its gradient scaled by ``factor`` at positions ``where`` [B, h, w]."""
    weight = torch.where(where[:, None], factor, 1.0).to(x.dtype)
    still = x.detach()
    return still + weight * (x - still)
