from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from iufbench.models.attention import Attention, neighbour_mask
from iufbench.models.checkpoints import load_public_weights
from iufbench.models.position import sine_position
from iufbench.models.uniad import Reconstruction, UniAD, add_jitter, anomaly_map, reconstruction_loss
from iufbench.support.errors import InputError

SMALL = {"hidden": 32, "heads": 4, "feedforward": 64, "encoder_layers": 2, "decoder_layers": 2}
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def small(size: tuple[int, int] = (14, 14), **options) -> UniAD:
    return UniAD(24, feature_size=size, **{**SMALL, **options})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("01_uniad_learned_nomask", {}),
        ("01_uniad_learned_mask777", {"neighbour_mask": (7, 7)}),
        ("01_uniad_sine_nomask", {"position": "sine"}),
    ],
)
def test_forward_equals_the_released_code(arrays, part, name, options):
    d = arrays(name)
    model = small(**options).eval()
    load_public_weights(model, part(d, "w/"))
    memory = []
    model.transformer.encoder.register_forward_hook(lambda module, args, out: memory.append(out))
    with torch.no_grad():
        out = model(d["in/feature_align"])
    torch.testing.assert_close(model.pos_embed(), d["mid/pos_embed"], **CLOSE)
    torch.testing.assert_close(memory[0].transpose(0, 1), d["mid/encoder_out"], **CLOSE)
    torch.testing.assert_close(out.decoder_features[-1].transpose(0, 1), d["mid/decoder_out"], **CLOSE)
    torch.testing.assert_close(out.reconstruction, d["out/feature_rec"], **CLOSE)
    torch.testing.assert_close(anomaly_map(out, 56)[:, None], d["out/pred"], **CLOSE)
    torch.testing.assert_close(reconstruction_loss(out), d["loss/mse"], **CLOSE)


def test_gradients_equal_the_released_code(arrays, part):
    d = arrays("01_uniad_grads")
    model = small((7, 7)).eval()
    load_public_weights(model, part(d, "w/"))
    reconstruction_loss(model(d["in/feature_align"])).backward()
    expected = part(d, "g/")
    assert expected.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=2e-6, rtol=1e-3, msg=name)
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters()])
    torch.testing.assert_close(norm, d["grad/total_norm"], atol=1e-5, rtol=1e-4)


def test_attention_is_torchs_multihead_attention():
    ours = Attention(32, 4).eval()
    torchs = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    nn.init.normal_(ours.in_proj_bias)
    torchs.load_state_dict(ours.state_dict())
    x, position, query = torch.randn(3, 10, 32), torch.randn(10, 32), torch.randn(1, 10, 32)
    allowed = torch.rand(10, 10) > 0.3
    key = x + position
    expected, _ = torchs(key, key, x, attn_mask=~allowed)
    torch.testing.assert_close(ours(x, position, mask=allowed), expected, **CLOSE)
    expected, _ = torchs(query.expand(3, -1, -1), key, x)
    torch.testing.assert_close(ours(x, position, query=query), expected, **CLOSE)


def test_mask_equals_the_released_one(arrays):
    blocked = arrays("01_uniad_learned_mask777")["mid/mask_blocked_uint8"].bool()
    assert torch.equal(~neighbour_mask((14, 14), (7, 7)), blocked)


@pytest.mark.parametrize(("size", "window"), [((5, 8), (3, 3)), ((6, 4), (1, 4)), ((9, 9), (4, 6))])
def test_mask_by_brute_force_and_even_windows_act_like_the_next_odd_one(size, window):
    h, w = size
    allowed = neighbour_mask(size, window)
    for query in range(h * w):
        for key in range(h * w):
            dy, dx = abs(query // w - key // w), abs(query % w - key % w)
            assert allowed[query, key] == (dy > window[0] // 2 or dx > window[1] // 2)
    assert torch.equal(allowed, neighbour_mask(size, tuple(n | 1 for n in window)))


def test_each_mask_switch_acts_on_its_own_attention():
    features = torch.randn(1, 24, 7, 7)
    torch.manual_seed(1)
    plain = small((7, 7), position="sine").eval()
    results = [plain(features).reconstruction]
    for place in range(3):
        switches = tuple(i == place for i in range(3))
        masked = small((7, 7), position="sine", neighbour_mask=(3, 3), mask_switches=switches).eval()
        masked.load_state_dict(plain.state_dict())
        results.append(masked(features).reconstruction)
    off = small((7, 7), position="sine", neighbour_mask=(3, 3), mask_switches=(False,) * 3).eval()
    off.load_state_dict(plain.state_dict())
    assert torch.equal(off(features).reconstruction, results[0])
    for i in range(4):
        for j in range(i):
            assert not torch.allclose(results[i], results[j])


def test_sine_position_by_its_formula():
    height, width, channels = 3, 5, 12
    half = channels // 2
    table = sine_position((height, width), channels)
    for y in range(height):
        for x in range(width):
            for place, size, start in ((y, height, 0), (x, width, half)):
                for i in range(half):
                    angle = 2 * math.pi * (place + 1) / (size + 1e-6) / 10000 ** (2 * (i // 2) / half)
                    expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
                    assert table[y * width + x, start + i] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("position", ["learned", "sine"])
def test_rectangular_features(position):
    model = small((3, 5), position=position, neighbour_mask=(1, 3))
    out = model(torch.randn(2, 24, 3, 5))
    assert out.reconstruction.shape == (2, 24, 3, 5)
    assert anomaly_map(out, (48, 80)).shape == (2, 48, 80)
    reconstruction_loss(out).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_tokens_keep_their_place():
    """The map's peak is at the feature that was not reconstructed."""
    target = torch.zeros(1, 24, 3, 5)
    target[0, :, 2, 4] = 1
    result = anomaly_map(Reconstruction(torch.zeros_like(target), target), (33, 65))
    assert result[0, -1, -1] == pytest.approx(math.sqrt(24))
    assert (result[0] == result[0].max()).nonzero().tolist() == [[32, 64]]


def test_jitter_equals_the_released_one(arrays):
    d = arrays("09_jitter")
    torch.testing.assert_close(
        add_jitter(d["in/tokens"], d["in/noise"], 20.0), d["out/tokens"], atol=5e-5, rtol=0
    )


def seen_tokens(model: UniAD, features: torch.Tensor, **options) -> torch.Tensor:
    """The input of the first linear layer."""
    seen = []
    handle = model.input_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(features, **options)
    handle.remove()
    return seen[0]


def test_jitter_is_random_in_training_only_and_leaves_the_target_clean():
    model, features = small(), torch.randn(2, 24, 14, 14)
    clean = features.flatten(2).transpose(1, 2)
    jittered = seen_tokens(model.train(), features)
    ratio = (jittered - clean).norm(dim=-1) / clean.norm(dim=-1)
    assert ratio.mean() == pytest.approx(20 / math.sqrt(24), rel=0.02)
    assert torch.equal(model(features).target, features)
    assert torch.equal(seen_tokens(model.eval(), features), clean)
    assert torch.equal(seen_tokens(small(jitter_scale=0).train(), features), clean)


def test_jitter_tosses_one_coin_a_batch():
    model, features = small((2, 2), jitter_probability=0.25), torch.randn(3, 24, 2, 2)
    clean = features.flatten(2).transpose(1, 2)
    changed = [(seen_tokens(model, features) != clean).any(dim=-1) for _ in range(400)]
    assert all(c.all() or not c.any() for c in changed)
    assert 0.17 < sum(bool(c.any()) for c in changed) / 400 < 0.33


def test_generator_decides_the_jitter():
    model, features = small(dropout=0.0, jitter_probability=0.5), torch.randn(2, 24, 14, 14)
    runs = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(3)
        before = torch.get_rng_state()
        runs.append([model(features, generator=generator).reconstruction for _ in range(4)])
        assert torch.equal(torch.get_rng_state(), before)
    for first, second in zip(*runs):
        assert torch.equal(first, second)


def test_standardised_reconstruction_and_score():
    features = torch.randn(300, 24, 3, 3) * torch.arange(1, 25).view(24, 1, 1) + 7
    features[:, 5] = 2.0
    model = small((3, 3), standardise=True).eval()
    assert torch.equal(model(features[:4]).target, features[:4])
    model.fit_standardisation(features.half())
    target = model(features).target
    flat = target.transpose(0, 1).flatten(1)
    varying = [c for c in range(24) if c != 5]
    torch.testing.assert_close(flat.mean(1), torch.zeros(24), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.std(1)[varying], torch.ones(23), atol=1e-3, rtol=0)
    assert target[:, 5].abs().max() == 0
    assert {"feature_mean", "feature_std"} <= model.state_dict().keys()


def test_half_precision_features_and_autocast():
    model = small().eval()
    features = torch.randn(2, 24, 14, 14)
    exact = model(features).reconstruction
    assert (model(features.half()).reconstruction - exact).abs().max() < 1e-2
    with torch.autocast("cpu", torch.bfloat16):
        out = model(features)
    assert out.reconstruction.dtype == torch.float32
    assert (out.reconstruction - exact).abs().max() < 0.1


def test_projected_layers_are_the_second_mlp_layers():
    layers = small().projected_layers()
    coders = ("encoder", "decoder")
    assert list(layers) == [f"transformer.{c}.layers.{i}.linear2" for c in coders for i in range(2)]
    assert all(layer.weight.shape == (32, 64) for layer in layers.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 5}, "heads"),
        ({"position": "rotary"}, "position"),
        ({"neighbour_mask": (27, 27)}, "neighbour_mask"),
        ({"neighbour_mask": (0, 3)}, "neighbour_mask"),
        ({"decoder_layers": 0}, "decoder_layers"),
        ({"hidden": 33, "heads": 3}, "hidden"),
    ],
)
def test_sizes_that_do_not_fit(options, words):
    with pytest.raises(InputError, match=words):
        small(**options)


def test_features_of_another_size():
    with pytest.raises(ValueError, match=r"\(24, 7, 7\)"):
        small()(torch.randn(1, 24, 7, 7))
