"""Loads public UniAD and IUF checkpoints.

How tensor names are translated:

    module.reconstruction.transformer...   -> transformer...     (also input_proj, output_proj, pos_embed)
    module.reconstruction.vitclassifiy...  -> classifier...
        ...vit_blocks.N...                 ->     ...blocks.N...
        ...mlp.mlp.N...                    ->     ...mlp.N...
    module.backbone..., module.neck...     -> not read: the backbone is frozen and lives outside the network

All other names are the same. ``module.`` and ``reconstruction.`` may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from iufbench.support.errors import InputError

from .uniad import UniAD
from .weights import take

_RENAMED = (("vitclassifiy.vit_blocks.", "classifier.blocks."), ("vitclassifiy.", "classifier."))
_STANDARDISATION = ("feature_mean", "feature_std")
_OUTSIDE = ("backbone.", "neck.")
_HEAD = "classifier.fc.2.weight"


def own_name(public: str) -> str:
    """The name in our networks of a tensor of a public checkpoint.

    >>> own_name("module.reconstruction.vitclassifiy.vit_blocks.0.mlp.mlp.2.bias")
    'classifier.blocks.0.mlp.2.bias'
    """
    name = public.removeprefix("module.").removeprefix("reconstruction.")
    for theirs, ours in _RENAMED:
        if name.startswith(theirs):
            return ours + name[len(theirs) :].replace(".mlp.mlp.", ".mlp.")
    return name


def load_public_weights(
    model: UniAD, state_dict: Mapping[str, Tensor], source: str = "public checkpoint"
) -> None:
    """Load a public checkpoint into a UniAD or IUF network.

    Args:
        model: The network. A classifier grows to the checkpoint's number of objects, in the same order.
        state_dict: From ``weights.read_state_dict``.
        source: Named in errors.

    Raises:
        InputError: A tensor is missing, has a different shape, or does not belong to this network.
    """
    given = {own_name(name): tensor for name, tensor in state_dict.items()}
    given = {name: tensor for name, tensor in given.items() if not name.startswith(_OUTSIDE)}
    classifier = getattr(model, "classifier", None)
    if classifier is not None and _HEAD in given:
        classifier.grow(max(classifier.objects, len(given[_HEAD])))
    own = model.state_dict()
    kept = {name: own[name] for name in _STANDARDISATION if name in own}
    taken = take({name: own[name] for name in own if name not in kept}, given, source)
    for name in given:
        if name not in taken:
            hint = " (it has no classifier)" if name.startswith("classifier.") else ""
            raise InputError(f"{source}: tensor {name!r} does not belong to this network{hint}")
    model.load_state_dict({**taken, **kept})
