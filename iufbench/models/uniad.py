"""UniAD: a transformer that reconstructs frozen features; what it cannot reconstruct is anomalous.

You et al., "A Unified Model for Multi-class Anomaly Detection", NeurIPS 2022. Written from the method's
description; parameter names are those of the public checkpoints.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iufbench.support.device import PRECISIONS
from iufbench.support.errors import InputError

from .attention import neighbour_mask as make_neighbour_mask
from .position import make_position
from .transformer import Transformer

_STATISTICS_CHUNK = 256  # images per step, so that cached float16 features are never upcast all at once


@dataclass
class Reconstruction:
    """The output of a forward pass.

    Attributes:
        reconstruction: [B, C, h, w], in the same (possibly standardised) space as ``target``.
        target: [B, C, h, w], without jitter.
        decoder_features: [B, L, E] per decoder layer, after the shared LayerNorm.
        class_logits: [B, K] from IUF's object classifier; None for a network without one.
        incoherence: [B, L], distance of each patch to its image's nearest prototype; None but for INP-Former.
    """

    reconstruction: Tensor
    target: Tensor
    decoder_features: list[Tensor] = field(default_factory=list)
    class_logits: Tensor | None = None
    incoherence: Tensor | None = None

    def distance(self) -> Tensor:
        """[B, h, w] >= 0: Euclidean distance over channels between reconstruction and target."""
        return torch.linalg.vector_norm(self.reconstruction - self.target, dim=1)


def matrix_products(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Context of matrix products: autocast for ``bf16``, else none.

    Autocast's cache of converted weights is disabled: in a captured iteration inside a user's autocast,
    weights converted before the capture would be used for ever. A forward pass converts no weight twice.
    """
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def reconstruction_loss(output: Reconstruction) -> Tensor:
    """Mean squared error over all elements; scalar."""
    return F.mse_loss(output.reconstruction, output.target)


def anomaly_map(output: Reconstruction, size: int | tuple[int, int]) -> Tensor:
    """[B, size, size] >= 0: the distance map, upsampled bilinearly with aligned corners."""
    size = (size, size) if isinstance(size, int) else size
    return F.interpolate(output.distance()[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


def add_jitter(tokens: Tensor, noise: Tensor, scale: float) -> Tensor:
    """UniAD's feature jitter: Gaussian noise of standard deviation scale * |token| / C on each token.

    ``tokens`` and ``noise`` (standard normal) are [..., C].
    """
    norms = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    return tokens + noise * (norms / tokens.shape[-1] * scale)


class UniAD(nn.Module):
    """The reconstruction network.

    Args:
        channels: C of the input features.
        hidden: Width of the transformer.
        heads: Its attention heads.
        feedforward: Width of its MLPs.
        encoder_layers: Number of encoder layers.
        decoder_layers: Number of decoder layers.
        dropout: Its dropout.
        feature_size: (h, w) of the input features; queries and positions are learned per token.
        neighbour_mask: (kh, kw) of tokens hidden around each token; None for no mask.
        mask_switches: Whether the mask applies to the encoder, to the decoder's attention to the encoder
            output, and to its attention to the previous layer.
        position: ``learned`` or ``sine``.
        jitter_scale: Scale of the feature jitter in training.
        jitter_probability: Its probability, drawn once per batch.
        standardise: Reconstruct and score features standardised per channel (``fit_standardisation``).
        precision: ``fp32``, ``tf32`` (CUDA's products, set for the whole process by
            ``support.device.set_products``), or ``bf16`` for matrix products in bfloat16 (autocast; weights
            stay float32).

    Raises:
        InputError: Sizes are incompatible.
    """

    feature_mean: Tensor
    feature_std: Tensor
    _mask: Tensor | None

    def __init__(
        self,
        channels: int,
        hidden: int = 256,
        heads: int = 8,
        feedforward: int = 1024,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        dropout: float = 0.1,
        feature_size: tuple[int, int] = (14, 14),
        neighbour_mask: tuple[int, int] | None = None,
        mask_switches: tuple[bool, bool, bool] = (True, True, True),
        position: str = "learned",
        jitter_scale: float = 20.0,
        jitter_probability: float = 1.0,
        standardise: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        if decoder_layers < 1:
            raise InputError(f"decoder_layers: {decoder_layers} must be at least 1")
        if precision not in PRECISIONS:
            raise InputError(f"precision: {precision!r} is unknown; allowed are {', '.join(PRECISIONS)}")
        self.precision = precision
        self.channels = channels
        self.feature_size = (int(feature_size[0]), int(feature_size[1]))
        self.jitter_scale = jitter_scale
        self.jitter_probability = jitter_probability
        self.standardise = standardise
        self.mask_switches = mask_switches
        tokens = self.feature_size[0] * self.feature_size[1]
        self.pos_embed = make_position(position, self.feature_size, hidden)
        self.transformer = Transformer(
            tokens, hidden, heads, feedforward, encoder_layers, decoder_layers, dropout
        )
        self.input_proj = nn.Linear(channels, hidden)
        self.output_proj = nn.Linear(hidden, channels)
        mask = None if neighbour_mask is None else make_neighbour_mask(self.feature_size, neighbour_mask)
        self.register_buffer("_mask", mask, persistent=False)
        if standardise:
            self.register_buffer("feature_mean", torch.zeros(channels))
            self.register_buffer("feature_std", torch.ones(channels))
        initialise(self)

    def forward(
        self, features: Tensor, guide: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """Reconstruct ``features`` [B, C, h, w] (any float type).

        ``guide``: input of the object classifier (IUF only). ``generator``: draws the feature jitter (its
        device may differ from the features'); None = torch's global one.
        """
        if features.shape[1:] != (self.channels, *self.feature_size):
            expected = (self.channels, *self.feature_size)
            raise ValueError(
                f"features are {tuple(features.shape[1:])} per image, the network expects {expected}"
            )
        target = self._standardised(features.to(self.output_proj.weight.dtype))
        tokens = target.flatten(2).transpose(1, 2)
        if self.training:
            tokens = self._jittered(tokens, generator)
        masks = tuple(self._mask if on else None for on in self.mask_switches)
        with matrix_products(self.precision, tokens.device):
            class_logits, guides = self._look_at(guide)
            outputs = self.transformer(self.input_proj(tokens), self.pos_embed(), guides, masks)
            reconstruction = self.output_proj(outputs[-1])
        return Reconstruction(
            reconstruction.to(target.dtype).transpose(1, 2).unflatten(2, self.feature_size),
            target,
            [features.to(target.dtype) for features in outputs],
            None if class_logits is None else class_logits.to(target.dtype),
        )

    def _look_at(self, guide: Tensor | None) -> tuple[Tensor | None, list[Tensor] | None]:
        """Class logits and one query factor [B, L, E] per encoder layer; UniAD has neither."""
        return None, None

    def _standardised(self, features: Tensor) -> Tensor:
        if not self.standardise:
            return features
        return (features - self.feature_mean[:, None, None]) / self.feature_std[:, None, None]

    def _jittered(self, tokens: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.jitter_scale == 0 or self.jitter_probability == 0:
            return tokens
        device = tokens.device if generator is None else generator.device
        if self.jitter_probability < 1:
            coin = torch.rand((), generator=generator, device=device)
            if coin.item() >= self.jitter_probability:
                return tokens
        noise = torch.randn(tokens.shape, generator=generator, device=device, dtype=tokens.dtype)
        return add_jitter(tokens, noise.to(tokens.device), self.jitter_scale)

    @torch.no_grad()
    def fit_standardisation(self, features: Tensor) -> None:
        """Set mean and standard deviation per channel from ``features`` [N, C, h, w]; call it once.

        A constant channel keeps scale 1, so that it cannot become huge on other images.
        """
        if not self.standardise:
            raise ValueError("this network was built with standardise=False")
        mean, std = channel_statistics(features)
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)

    def save_memory(self) -> None:
        """Recompute activations in the backward pass where they take much memory: nothing in UniAD does."""

    def projected_layers(self) -> dict[str, nn.Linear]:
        """Layers whose gradients IUF's update strategy projects, by module name.

        The second MLP layer of every encoder layer, then of every decoder layer.
        """
        return {
            name: part
            for name, part in self.transformer.named_modules(prefix="transformer")
            if isinstance(part, nn.Linear) and name.endswith(".linear2")
        }


def channel_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """float64 [C] twice: mean and standard deviation per channel of ``features`` [N, C, h, w].

    A channel that never varies has deviation 1, so that it cannot blow up on other images.
    """
    chunks = features.split(_STATISTICS_CHUNK)
    count = features.numel() / features.shape[1]
    total = sum(chunk.double().sum(dim=(0, 2, 3)) for chunk in chunks)
    mean = torch.as_tensor(total) / count
    squares = sum((chunk.double() - mean[:, None, None]).square().sum(dim=(0, 2, 3)) for chunk in chunks)
    std = (torch.as_tensor(squares) / count).sqrt()
    std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
    return mean, std


def initialise(module: nn.Module) -> None:
    """UniAD's start: Xavier-uniform linear and convolution weights, zero biases; the rest as built."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
