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
# Tensors in files besides a network's own weights: the classifier, step counters, computed tables.
HEADS = ("fc.", "head.", "head_dist.", "classifier.", "last_linear.")
COMPUTED = ("num_batches_tracked", "relative_position_index", "attn_mask", "relative_coords_table")
PATIENCE = 5.0  # seconds that the search for the right network may take
# Prefix of tensor names -> prefixes of the names of timm models with such tensors.
FAMILIES = {
    "layer1.": ("resnet", "wide_resnet", "resnext", "seresnet", "ecaresnet"),
    "blocks.0.attn.": ("vit_", "deit", "beit", "eva"),
    "conv_stem.": ("efficientnet", "tf_efficientnet", "mobilenet", "tf_mobilenet", "mnasnet"),
    "stages.0.blocks.": ("convnext",),
    "layers.0.blocks.": ("swin",),
    "features.": ("vgg", "densenet"),
}


def require_no_leftovers(given: Mapping[str, Tensor], used: Collection[str], name: str, source: str) -> None:
    """Check that all tensors of a file belong to a network.

    Other tensors may fit nevertheless: a file of ResNet-34 has every name and shape of ResNet-18, and the
    first two stages of ResNet-101 are those of ResNet-50. The classifier, unused stages, and stages that the
    file lacks altogether are accepted.

    Args:
        given: The tensors of the file, by timm's names.
        used: The names that were used.
        name: The timm model.
        source: Start of the message.

    Raises:
        InputError: The file has further tensors, or only a part of a stage.
    """
    unused = [key for key in given if key not in used and not _beside(key)]
    whole = shapes_of(name) if unused else {}
    left = [key for key in unused if whole.get(key) != tuple(given[key].shape)]
    stages = {_stage(key) for key in given}
    lacking = [key for key in whole if key not in given and not _beside(key) and _stage(key) in stages]
    if left or lacking:
        shown = ", ".join((left or lacking)[:3]) + (", ..." if len(left or lacking) > 3 else "")
        what = f"has {len(left)} tensors that {name} lacks" if left else (
            f"lacks {len(lacking)} tensors of {name}"
        )  # fmt: skip
        raise InputError(
            f"{source}: the file {what} ({shown}){resemblance(given, name)}; give weights of {name}, or "
            "another --backbone"
        )


def shapes_of(name: str) -> Shapes:
    """Names and shapes of all weights of a timm model, without allocating them."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def resemblance(given: Mapping[str, Tensor], name: str) -> str:
    """``": they look like weights of resnet34"`` for the model that they fit, "" if none is found in time.

    Models with names similar to ``name`` are tried first, then those with the shortest, most common names.
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
        except Exception:  # some timm models cannot be created this way: they are skipped
            continue
        if whole == own:
            return f": they look like weights of {other}" if other != name else ""
    return ""


def _pattern(name: str) -> str:
    return re.sub(r"[0-9]+", "0", name)


def _stage(key: str) -> str:
    """The stage of a tensor: its name up to the first number (``layer3``, ``blocks.5``)."""
    return re.match(r"\D*\d*", key)[0]  # type: ignore[index]


def _beside(key: str) -> bool:
    return key.startswith(HEADS) or key.endswith(COMPUTED)
