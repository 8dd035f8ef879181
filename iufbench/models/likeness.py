"""Checks whether weights belong to a network and, if not, finds the network they resemble."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping

import timm
import torch
from torch import Tensor

from iufbench.support.errors import InputError

Shapes = dict[str, tuple[int, ...]]
# What files carry beside a network's own weights: the classifier, step counters, tables that are computed.
HEADS = ("fc.", "head.", "head_dist.", "classifier.", "last_linear.")
COMPUTED = ("num_batches_tracked", "relative_position_index", "attn_mask", "relative_coords_table")
PATIENCE = 5.0  # seconds that looking for the right network may take
# How names of tensors begin -> how the names of networks of timm with such tensors begin.
FAMILIES = {
    "layer1.": ("resnet", "wide_resnet", "resnext", "seresnet", "ecaresnet"),
    "blocks.0.attn.": ("vit_", "deit", "beit", "eva"),
    "conv_stem.": ("efficientnet", "tf_efficientnet", "mobilenet", "tf_mobilenet", "mnasnet"),
    "stages.0.blocks.": ("convnext",),
    "layers.0.blocks.": ("swin",),
    "features.": ("vgg", "densenet"),
}


def require_no_leftovers(given: Mapping[str, Tensor], used: Collection[str], name: str, source: str) -> None:
    """InputError when a file holds tensors that the whole network has no place for.

    Its first part can fit all the same: every name and shape of ResNet-18 is in a file of ResNet-34. The
    classifier, and stages that are not in use, are no leftovers.

    Args:
        given: The tensors of the file, by the names of timm.
        used: The names that were taken.
        name: The network, as timm calls it.
        source: What the message begins with.
    """
    unused = [key for key in given if key not in used and not _beside(key)]
    whole = shapes_of(name) if unused else {}
    left = [key for key in unused if key not in whole]
    if left:
        shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        raise InputError(
            f"{source}: the file holds {len(left)} tensors that {name} has not ({shown})"
            f"{resemblance(given, name)}; give weights of {name}, or --backbone"
        )


def shapes_of(name: str) -> Shapes:
    """Names and shapes of all weights of a network of timm, made without memory for them."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def resemblance(given: Mapping[str, Tensor], name: str) -> str:
    """``": they look like weights of resnet34"`` for the network that they fit, "" if none is found in time.

    Names like that of ``name`` come first, then the shortest, which are the usual ones.
    """
    own = {key: tuple(tensor.shape) for key, tensor in given.items() if not _beside(key)}
    begins = [names for sign, names in FAMILIES.items() if any(key.startswith(sign) for key in own)]
    families = begins[0] if begins else tuple(re.findall(r"^[a-z]+", name))
    names = [other for other in timm.list_models() if other.startswith(families)]
    names.sort(key=lambda other: (_pattern(other) != _pattern(name), len(other), other))
    end = time.monotonic() + PATIENCE
    for other in names:
        if time.monotonic() > end:
            break
        try:
            whole = {key: shape for key, shape in shapes_of(other).items() if not _beside(key)}
        except Exception:  # some networks of timm cannot be made this way: they are not looked at
            continue
        if whole == own:
            return f": they look like weights of {other}"
    return ""


def _pattern(name: str) -> str:
    return re.sub(r"[0-9]+", "0", name)


def _beside(key: str) -> bool:
    return key.startswith(HEADS) or key.endswith(COMPUTED)
