"""Vision transformers as feature extractors: token maps of chosen blocks, and the class token.

For plain transformers with a single patch size (ViT, DeiT, DINOv2, DINOv3, CLIP, SigLIP); hierarchical ones
(Swin) return feature maps like convolutional networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from torch import Tensor, nn

_FAMILIES = ("vision_transformer", "deit", "eva")  # modules of timm; DINOv3 is an "eva" there


class TokenMaps(nn.Module):
    """A timm transformer truncated after the last of ``blocks`` (indices from 0).

    Register, distillation and class tokens are not part of the maps.

    Attributes:
        patch: Side of a patch in pixels.
        width: Channels of a token.
        class_token: Whether there is a class token.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[int], norm: bool) -> None:
        super().__init__()
        self.blocks, self.norm = list(blocks), norm
        network: Any = model
        sides = network.patch_embed.patch_size
        if sides[0] != sides[1]:
            raise ValueError(f"patches of {sides[0]}x{sides[1]} pixels are not square")
        self.patch, self.width = int(sides[0]), int(network.embed_dim)
        self.class_token = getattr(network, "cls_token", None) is not None
        network.prune_intermediate_layers(self.blocks, prune_norm=not norm)
        self.network = network

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Compute token maps.

        Args:
            images: [B, 3, H, W], normalised, with sides that are multiples of the patch.

        Returns:
            A map [B, C, H/patch, W/patch] per chosen block, and the class token [B, C] after the last one or
            None; with ``norm`` after the model's final normalisation.
        """
        found = self.network.forward_intermediates(
            images, indices=self.blocks, return_prefix_tokens=True, norm=self.norm, intermediates_only=True
        )
        maps = [part[0] if isinstance(part, tuple) else part for part in found]
        prefix = found[-1][1] if isinstance(found[-1], tuple) else None
        return maps, prefix[:, 0] if self.class_token and prefix is not None else None


def is_transformer(name: str) -> bool:
    """Whether timm's model ``name`` is a plain vision transformer with a single patch size."""
    module = timm.models.model_entrypoint(name.partition(".")[0]).__module__
    return module.rpartition(".")[2] in _FAMILIES
