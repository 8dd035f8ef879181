"""The IUF network: UniAD whose encoder queries are modulated by the inner maps of an object classifier.

Tang et al., "An Incremental Unified Framework for Small Defect Inspection", ECCV 2024 (object-aware
self-attention). Written from the method's description.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iufbench.support.errors import InputError

from .attention import attend
from .uniad import UniAD, initialise


class RowAttention(nn.Module):
    """Self-attention within image rows, each a sequence of its own; [B, H, W, E] in and out."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(f"classifier heads: {channels} channels do not divide into {heads} heads")
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.query, self.key, self.value)
        weight = torch.cat([part.weight for part in parts])
        bias = torch.cat([part.bias for part in parts])
        q, k, v = F.linear(x.flatten(0, 1), weight, bias).chunk(3, dim=-1)
        return self.out(attend(q, k, v, self.heads)).view_as(x)


class ClassifierBlock(nn.Module):
    """Pre-norm block: row-wise attention, then an MLP with exact GELU."""

    def __init__(self, channels: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.self_attention = RowAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, mlp), nn.GELU(), nn.Linear(mlp, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ObjectClassifier(nn.Module):
    """Classifies the object in an image; its inner maps condition the reconstruction on the object.

    Attention stays within image rows and there is no position embedding, at the resolution of the image.
    Cost and memory grow with the number of pixels: at 224x224 it accounts for 96 % of IUF's computation.

    Attributes:
        checkpointed: In training, keep only the input of each block and recompute the rest in the backward
            pass, with the same gradients.
    """

    checkpointed = False

    def __init__(
        self, objects: int, channels: int = 256, depth: int = 4, heads: int = 4, mlp: int = 128
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=1e-5)
        self.blocks = nn.ModuleList(ClassifierBlock(channels, heads, mlp) for _ in range(depth))
        self.fc = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, objects))
        initialise(self)

    @property
    def objects(self) -> int:
        """K, the number of classes."""
        return self._last.out_features

    @property
    def _last(self) -> nn.Linear:
        last = self.fc[2]
        assert isinstance(last, nn.Linear)
        return last

    def forward(self, image: Tensor, feature_size: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
        """Classify images.

        Args:
            image: [B, 3, H, W], normalised; H and W need not be multiples of the feature size.
            feature_size: (h, w).

        Returns:
            Logits [B, K], and the map of every block [B, E, h, w], average-pooled, without gradient.
        """
        x = F.relu(self.bn1(self.conv1(image))).permute(0, 2, 3, 1).contiguous()
        maps = []
        for block in self.blocks:
            # Blocks draw no random numbers, and reading their state would spoil a captured iteration.
            keep = not (self.checkpointed and torch.is_grad_enabled())
            x = block(x) if keep else checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
            maps.append(F.adaptive_avg_pool2d(x.detach().permute(0, 3, 1, 2), feature_size))
        return self.fc(x.mean(dim=(1, 2))), maps

    def grow(self, objects: int) -> None:
        """Grow to ``objects`` classes and keep the weights of the old ones.

        Replaces the last layer's parameters, so the optimiser must be built afterwards. Raises ValueError if
        there are more classes already.
        """
        old = self._last
        known = old.out_features
        if objects < known:
            raise ValueError(f"the classifier knows {known} objects and cannot shrink to {objects}")
        if objects == known:
            return
        new = nn.Linear(old.in_features, objects, device=old.weight.device, dtype=old.weight.dtype)
        initialise(new)
        with torch.no_grad():
            new.weight[:known] = old.weight
            new.bias[:known] = old.bias
        self.fc[2] = new


class IUFNetwork(UniAD):
    """UniAD with object-aware self-attention.

    Args:
        channels: C of the features.
        objects: K, the classifier's initial number of classes (``classifier.grow`` adds more).
        oasa: False omits the classifier: plain UniAD, for the ablation.
        classifier_heads: Attention heads of the classifier's blocks.
        classifier_mlp: Width of their MLPs.
        hidden: As for ``UniAD``.
        encoder_layers: As for ``UniAD``; also the number of the classifier's blocks.
        **uniad: The other arguments of ``UniAD``.
    """

    def __init__(
        self,
        channels: int,
        objects: int,
        oasa: bool = True,
        classifier_heads: int = 4,
        classifier_mlp: int = 128,
        hidden: int = 256,
        encoder_layers: int = 4,
        **uniad: Any,
    ) -> None:
        super().__init__(channels, hidden=hidden, encoder_layers=encoder_layers, **uniad)
        self.classifier: ObjectClassifier | None = None
        if oasa:
            self.classifier = ObjectClassifier(
                objects, hidden, depth=encoder_layers, heads=classifier_heads, mlp=classifier_mlp
            )

    def save_memory(self) -> None:
        """Recompute the classifier's activations in the backward pass."""
        if self.classifier is not None:
            self.classifier.checkpointed = True

    def _look_at(self, guide: Tensor | None) -> tuple[Tensor | None, list[Tensor] | None]:
        if self.classifier is None:
            return None, None
        if guide is None:
            raise ValueError("the IUF network needs guide=[B, 3, H, W], the input of its classifier")
        logits, maps = self.classifier(guide, self.feature_size)
        return logits, [m.flatten(2).transpose(1, 2) for m in maps]


@contextmanager
def token_means(model: UniAD) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the outputs of the projected layers, averaged over tokens, while the block runs.

    Yields {layer name: one detached float32 [B, E] per forward pass}: the rows of IUF's feature matrices. The
    hooks are removed when the block ends, also by an exception.
    """
    collected: dict[str, list[Tensor]] = {name: [] for name in model.projected_layers()}
    handles = []

    def collect(rows: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            rows.append(output.detach().float().mean(dim=1))

        return hook

    try:
        for name, layer in model.projected_layers().items():
            handles.append(layer.register_forward_hook(collect(collected[name])))
        yield collected
    finally:
        for handle in handles:
            handle.remove()
