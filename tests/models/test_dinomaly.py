"""Every part of Dinomaly against float64 formulas in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from iufbench.cards.strategies import Training
from iufbench.learning.optimizer import learning_rate_factor
from iufbench.learning.stable_adamw import StableAdamW
from iufbench.models.dinomaly import Block, Dinomaly, LinearAttention, distances, hard_mining_loss
from iufbench.models.uniad import Reconstruction
from iufbench.support.errors import InputError


def weights(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().double().numpy() for name, p in module.named_parameters()}


def spread(module: torch.nn.Module, seed: int = 0) -> None:
    """Weights far from the small initial ones, so that every part matters."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.4


def attention_by_hand(w: dict[str, np.ndarray], x: np.ndarray, heads: int, prefix: str = "") -> np.ndarray:
    count, length, channels = x.shape
    width = channels // heads
    found = np.zeros_like(x)
    phi = lambda z: np.where(z > 0, z + 1, np.exp(np.minimum(z, 0)))  # noqa: E731  ELU + 1
    for image in range(count):
        projected = x[image] @ w[f"{prefix}qkv.weight"].T + w[f"{prefix}qkv.bias"]
        q, k, v = (projected[:, i * channels : (i + 1) * channels] for i in range(3))
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for i in range(length):
                share = np.array([phi(q[i, part]) @ phi(k[j, part]) for j in range(length)])
                found[image, i, part] = (share / share.sum()) @ v[:, part]
    return found @ w[f"{prefix}out.weight"].T + w[f"{prefix}out.bias"]


def norm_by_hand(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-8) * weight + bias


def block_by_hand(w: dict[str, np.ndarray], x: np.ndarray, heads: int) -> np.ndarray:
    x = x + attention_by_hand(w, norm_by_hand(x, w["norm1.weight"], w["norm1.bias"]), heads, "attention.")
    z = norm_by_hand(x, w["norm2.weight"], w["norm2.bias"]) @ w["linear1.weight"].T + w["linear1.bias"]
    z = z * 0.5 * (1 + erf(z / math.sqrt(2)))
    return x + z @ w["linear2.weight"].T + w["linear2.bias"]


def test_linear_attention_is_its_formula():
    attention = LinearAttention(12, 3).double()
    spread(attention)
    x = np.random.default_rng(0).normal(size=(2, 7, 12))
    found = attention(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, attention_by_hand(weights(attention), x, 3), rtol=1e-10)


def test_a_block_is_its_formula():
    block = Block(8, 2, 16).double()
    spread(block)
    x = np.random.default_rng(1).normal(size=(2, 5, 8))
    found = block(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, block_by_hand(weights(block), x, 2), rtol=1e-9)


@pytest.mark.parametrize("groups", [(8, 8), (6, 10)])
def test_the_network_is_bottleneck_decoder_and_groups_in_reverse(groups):
    """Four layers, two groups: the last two layers reconstruct the first group, the first two the second."""
    net = Dinomaly(groups, hidden=8, heads=2, feedforward=16, layers=4).double().eval()
    spread(net)
    features = np.random.default_rng(2).normal(size=(2, sum(groups), 3, 2))
    output = net(torch.from_numpy(features))
    w = weights(net)
    a, b = features[:, : groups[0]], features[:, groups[0] :]
    x = (a + b) / 2 if groups == (8, 8) else features
    x = x.reshape(2, -1, 6).transpose(0, 2, 1)
    z = x @ w["bottleneck.1.weight"].T + w["bottleneck.1.bias"]
    z = z * 0.5 * (1 + erf(z / math.sqrt(2)))
    x = z @ w["bottleneck.4.weight"].T + w["bottleneck.4.bias"]
    layers = []
    for number in range(4):
        block = {n.removeprefix(f"decoder.{number}."): v for n, v in w.items() if f"decoder.{number}." in n}
        x = block_by_hand(block, x, 2)
        layers.append(x)
    made = [(layers[3] + layers[2]) / 2, (layers[1] + layers[0]) / 2]
    if groups == (6, 10):
        made = [m @ w[f"heads.{i}.weight"].T + w[f"heads.{i}.bias"] for i, m in enumerate(made)]
    expected = np.concatenate(made, axis=2).transpose(0, 2, 1).reshape(features.shape)
    np.testing.assert_allclose(output.reconstruction.detach().numpy(), expected, rtol=1e-8, atol=1e-10)
    assert np.array_equal(output.target.numpy(), features)
    for distance, part in zip(distances(output, groups), (slice(0, groups[0]), slice(groups[0], None))):
        p, t = expected[:, part], features[:, part]
        cosine = (p * t).sum(1) / np.sqrt((p**2).sum(1) * (t**2).sum(1))
        np.testing.assert_allclose(distance.detach().numpy(), 1 - cosine, rtol=1e-6, atol=1e-8)


def pair(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3, 6, 4, 2)), rng.normal(size=(3, 6, 4, 2))


def loss_by_hand(p: np.ndarray, t: np.ndarray) -> float:
    terms = []
    for part in (slice(0, 2), slice(2, 6)):
        for image in range(len(p)):
            a, b = p[image, part].ravel(), t[image, part].ravel()
            terms.append(1 - a @ b / np.sqrt((a @ a) * (b @ b)))
    return float(np.mean(terms))


@pytest.mark.parametrize("easy", [0.0, 0.3, 0.9])
def test_hard_mining_keeps_the_value_and_scales_easy_gradients(easy):
    p, t = pair()
    made = torch.from_numpy(p).requires_grad_()
    loss = hard_mining_loss(Reconstruction(made, torch.from_numpy(t)), (2, 4), easy, factor=0.1)
    assert loss.item() == pytest.approx(loss_by_hand(p, t), rel=1e-10)
    loss.backward()
    expected = np.zeros_like(p)
    for index in np.ndindex(p.shape):  # central differences of the plain loss
        step = np.zeros_like(p)
        step[index] = 1e-6
        expected[index] = (loss_by_hand(p + step, t) - loss_by_hand(p - step, t)) / 2e-6
    for part in (slice(0, 2), slice(2, 6)):
        a, b = p[:, part], t[:, part]
        distance = 1 - (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
        kept = max(1, int(distance.size * (1 - easy)))
        limit = sorted(distance.ravel(), reverse=True)[kept - 1]
        expected[:, part] *= np.where(distance < limit, 0.1, 1.0)[:, None]
    np.testing.assert_allclose(made.grad.numpy(), expected, rtol=1e-4, atol=1e-9)


def test_stable_adamw_is_its_formula():
    """Six steps, one with a gradient a thousand times as large, which the scale must damp."""
    rng = np.random.default_rng(4)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(6, 3, 4)) * 1e-2
    gradients[3] *= 1000
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = StableAdamW([parameter], lr=1e-2, weight_decay=0.1)
    theta, m, v, u, scales = start.copy(), 0.0, 0.0, np.zeros((3, 4)), []
    for t, g in enumerate(gradients, start=1):
        parameter.grad = torch.from_numpy(g)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = np.maximum(u, v)
        d = np.sqrt(u / (1 - 0.999**t)) + 1e-10
        scales.append(max(1.0, float(np.sqrt(((g / d) ** 2).mean()))))
        theta = theta * (1 - 1e-2 * 0.1) - 1e-2 / (1 - 0.9**t) / scales[-1] * m / d
        np.testing.assert_allclose(parameter.detach().numpy(), theta, rtol=1e-9)
    assert scales[3] > 1.5 and scales[0] == pytest.approx(1.0)


def test_a_cosine_schedule_ends_where_the_card_says():
    training = Training(epochs=10, batch_size=1, schedule="cosine", final_factor=0.1)
    factor = learning_rate_factor(training, 100, 10)
    assert factor(0) == 1.0 and factor(50) == pytest.approx(0.55) and factor(100) == pytest.approx(0.1)


def test_sizes_that_do_not_fit_are_reported():
    with pytest.raises(InputError, match="must be a multiple of"):
        Dinomaly((8,), hidden=8, heads=3)
    with pytest.raises(InputError, match="less than the 3 groups"):
        Dinomaly((8, 8, 8), hidden=8, heads=2, layers=2)
