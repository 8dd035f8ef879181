"""Vision transformers as backbones: their own grid, their blocks, their class token, on random weights."""

from __future__ import annotations

import pytest
import timm
import torch

from iufbench.models.backbone import BackboneSpec, FrozenBackbone
from iufbench.models.features import Features, FeatureShape
from iufbench.support.errors import InputError

TINY = "vit_tiny_patch16_224"


def pictures(size: int, n: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def vit(name: str = TINY, layers: tuple[int, ...] = (2, 3), **more) -> FrozenBackbone:
    return FrozenBackbone(BackboneSpec(name, "random", layers, **more))


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [
        ("vit_small_patch14_dinov2", 224, 16),
        ("vit_small_patch14_reg4_dinov2", 98, 7),
        ("vit_small_patch16_dinov3", 96, 6),
        ("vit_tiny_patch16_224", 224, 14),
        ("vit_tiny_patch16_224", 64, 4),
    ],
)
def test_tokens_stand_on_their_own_grid_at_any_size_the_patch_divides(name, size, side):
    backbone = vit(name, (0, 1), vector="class_token")
    width = backbone.channels // 2
    assert backbone.shape(size) == FeatureShape(2 * width, side, side, width)
    found = backbone.encode(pictures(size, 1))
    assert found.map.shape == (1, 2 * width, side, side) and found.vector.shape == (1, width)


def by_hand(blocks: int, images: torch.Tensor, norm: bool) -> list[torch.Tensor]:
    """The token sequences after the first blocks of the same model, computed by timm's parts one by one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(TINY, num_classes=0, dynamic_img_size=True).eval()
    mean, std = (torch.tensor(model.default_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        x = model.norm_pre(model._pos_embed(model.patch_embed((images.float() / 255 - mean) / std)))
        found = []
        for block in model.blocks[:blocks]:
            x = block(x)
            found.append(model.norm(x) if norm else x)
    return found


@pytest.mark.parametrize("norm", [False, True])
def test_maps_and_class_token_are_those_of_the_chosen_blocks(norm):
    images = pictures(64)
    found = vit(layers=(1, 3), norm=norm, vector="class_token").encode(images)
    sequences = by_hand(4, images, norm)
    expected = [sequences[i][:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for i in (1, 3)]
    torch.testing.assert_close(found.map, torch.cat(expected, dim=1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.vector, sequences[3][:, 0], atol=1e-5, rtol=1e-5)


def test_a_group_of_blocks_is_their_mean():
    images = pictures(64)
    single = {i: vit(layers=(i,)).features(images) for i in range(4)}
    backbone = vit(layers=(0, 1, 2, 3), groups=((0, 1), (1, 2, 3)))
    expected = [(single[0] + single[1]) / 2, (single[1] + single[2] + single[3]) / 3]
    assert backbone.groups == (192, 192)
    torch.testing.assert_close(backbone.features(images), torch.cat(expected, dim=1))


def test_groups_of_a_convolutional_network_are_stacked():
    spec = BackboneSpec("tf_efficientnet_lite0", "package")
    grouped = FrozenBackbone(BackboneSpec(spec.name, spec.weights, groups=((0, 1, 2), (3,)), vector="mean"))
    images = pictures(64)
    found = grouped.encode(images)
    assert grouped.groups == (80, 112) and torch.equal(found.map, FrozenBackbone(spec).features(images))
    assert torch.equal(found.vector, found.map.mean(dim=(2, 3)))


def test_registers_never_enter_the_map():
    """A register is a prefix token: changing it changes nothing in the map after the first block's input."""
    backbone = vit("vit_small_patch14_reg4_dinov2", (0,))
    model = backbone._model.network
    assert model.num_prefix_tokens == 5
    assert backbone.features(pictures(56, 1)).shape == (1, 384, 4, 4)


def test_rows_hold_map_and_vector():
    shape = FeatureShape(3, 2, 2, 5)
    features = Features(torch.randn(4, 3, 2, 2), torch.randn(4, 5))
    rows = shape.pack(features)
    assert rows.shape == (4, *shape.row) == (4, 17)
    assert all(torch.equal(a, b) for a, b in zip(shape.unpack(rows), features))
    bare = FeatureShape(3, 2, 2)
    assert bare.row == (3, 2, 2) and bare.unpack(features.map).vector is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BackboneSpec(TINY, "random", (12,)), "does not have all of blocks"),
        (BackboneSpec("vit_base_patch16_siglip_224", "random", (0,), vector="class_token"), "no class token"),
        (BackboneSpec("tf_efficientnet_lite0", "random", vector="class_token"), "no class token"),
        (BackboneSpec("tf_efficientnet_lite0", "random", norm=True), "not a vision transformer"),
        (BackboneSpec(TINY, "random", (0, 1), groups=((0,),)), "must name all of layers"),
    ],
)
def test_what_a_backbone_does_not_have_is_reported(spec, message):
    with pytest.raises(InputError, match=message):
        FrozenBackbone(spec)


def test_a_size_that_the_patch_does_not_divide_is_reported():
    backbone = vit("vit_small_patch14_dinov2", (0,))
    with pytest.raises(InputError, match="225x225: both sides must be multiples of 14, the patch"):
        backbone.shape(225)
    with pytest.raises(InputError, match="multiples of 14"):
        backbone.features(pictures(64))
