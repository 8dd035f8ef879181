"""Every part of INP-Former against float64 formulas written out in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax
from test_dinomaly import norm_by_hand, spread, weights
from tiny import assembled

from iufbench.models.dinomaly import hard_mining_loss
from iufbench.models.inp_former import CrossAttention, CrossBlock, InpFormer, incoherence


def attention_by_hand(
    w: dict, queries: np.ndarray, tokens: np.ndarray, heads: int, relu: bool, at: str = ""
) -> np.ndarray:
    hidden = len(w[f"{at}query.weight"])
    width = hidden // heads
    found = np.zeros((*queries.shape[:2], hidden))
    for image in range(len(queries)):
        q = queries[image] @ w[f"{at}query.weight"].T + w[f"{at}query.bias"]
        k, v = np.split(tokens[image] @ w[f"{at}key_value.weight"].T + w[f"{at}key_value.bias"], 2, axis=1)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for i in range(len(q)):
                product = np.array([q[i, part] @ k[j, part] for j in range(len(k))])
                if relu:
                    lengths = np.linalg.norm(q[i, part]) * np.linalg.norm(k[:, part], axis=1)
                    share = np.maximum(0, w[f"{at}scale"][head, 0, 0] * product / lengths)
                else:
                    share = softmax(product / math.sqrt(width))
                found[image, i, part] = share @ v[:, part]
    return found @ w[f"{at}out.weight"].T + w[f"{at}out.bias"]


def block_by_hand(w: dict, queries: np.ndarray, tokens: np.ndarray, heads: int, residual: bool) -> np.ndarray:
    normed = norm_by_hand(queries, w["norm1.weight"], w["norm1.bias"])
    tokens = norm_by_hand(tokens, w["norm_tokens.weight"], w["norm_tokens.bias"])
    x = attention_by_hand(w, normed, tokens, heads, not residual, "attention.") + (queries if residual else 0)
    z = norm_by_hand(x, w["norm2.weight"], w["norm2.bias"]) @ w["linear1.weight"].T + w["linear1.bias"]
    z = z * 0.5 * (1 + erf(z / math.sqrt(2)))
    return x + z @ w["linear2.weight"].T + w["linear2.bias"]


def below(w: dict, prefix: str) -> dict:
    return {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}


def some(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("relu", [True, False])
def test_cross_attention_is_its_formula(relu):
    attention = CrossAttention(10, 9, 12, 3, relu).double()
    spread(attention)
    queries, tokens = some(2, 4, 10), some(2, 7, 9, seed=1)
    found = attention(torch.from_numpy(queries), torch.from_numpy(tokens)).detach().numpy()
    expected = attention_by_hand(weights(attention), queries, tokens, 3, relu)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("residual", [True, False])
def test_a_block_is_its_formula(residual):
    block = CrossBlock(8, 6, 4, 2, 16, residual).double()
    spread(block)
    queries, tokens = some(2, 5, 8), some(2, 3, 6, seed=1)
    found = block(torch.from_numpy(queries), torch.from_numpy(tokens)).detach().numpy()
    expected = block_by_hand(weights(block), queries, tokens, 2, residual)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_incoherence_is_the_distance_to_the_nearest_prototype():
    patches, prototypes = some(2, 5, 4), some(2, 3, 4, seed=1)
    found = incoherence(torch.from_numpy(patches), torch.from_numpy(prototypes)).numpy()
    for image, place in np.ndindex(2, 5):
        p = patches[image, place]
        cosines = [p @ m / (np.linalg.norm(p) * np.linalg.norm(m)) for m in prototypes[image]]
        assert found[image, place] == pytest.approx(1 - max(cosines), rel=1e-9)


@pytest.mark.parametrize("groups", [(8, 8), (6, 10)])
def test_the_network_rebuilds_patches_from_prototypes_of_the_image(groups):
    net = InpFormer(groups, 3, hidden=8, heads=2, feedforward=16, layers=4).double().eval()
    spread(net)
    features = some(2, 16, 3, 2, seed=2)
    output = net(torch.from_numpy(features))
    w = weights(net)
    inputs = (features[:, :8] + features[:, 8:]) / 2 if groups == (8, 8) else features
    inputs = inputs.reshape(2, -1, 6).transpose(0, 2, 1)
    z = inputs @ w["bottleneck.1.weight"].T + w["bottleneck.1.bias"]
    state = (z * 0.5 * (1 + erf(z / math.sqrt(2)))) @ w["bottleneck.4.weight"].T + w["bottleneck.4.bias"]
    tokens = np.broadcast_to(w["tokens"], (2, *w["tokens"].shape))
    prototypes = block_by_hand(below(w, "extractor."), tokens, inputs, 2, residual=True)
    layers = []
    for number in range(4):
        state = block_by_hand(below(w, f"decoder.{number}."), state, prototypes, 2, residual=False)
        layers.append(state)
    made = [(layers[3] + layers[2]) / 2, (layers[1] + layers[0]) / 2]
    if groups != (8, 8):
        made = [m @ w[f"heads.{i}.weight"].T + w[f"heads.{i}.bias"] for i, m in enumerate(made)]
    expected = np.concatenate(made, axis=2).transpose(0, 2, 1).reshape(features.shape)
    np.testing.assert_allclose(output.reconstruction.detach().numpy(), expected, rtol=1e-7, atol=1e-9)
    by_hand = incoherence(torch.from_numpy(inputs), torch.from_numpy(prototypes))
    torch.testing.assert_close(output.incoherence, by_hand)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_loss_is_dinomalys_and_the_weighted_coherence(data, tmp_path):
    _, parts = assembled("inp_former", data, tmp_path, settings=("inp.coherence=0.5",))
    learner, terms = parts.strategy, {}

    class Watch:
        def after_forward(self, strategy, **kwargs):
            if not terms:
                output = strategy.mb_output
                terms["mining"] = hard_mining_loss(
                    output, strategy.context.groups, strategy.easy_share(), 0.1
                )
                terms["coherence"] = 0.5 * output.incoherence.mean()

        def before_backward(self, strategy, **kwargs):
            if "loss" not in terms:
                terms["loss"] = strategy.loss.detach()

    learner.plugins.append(Watch())
    learner.train(parts.streams.train[0], eval_streams=[])
    expected = (terms["mining"] + terms["coherence"]).detach()
    torch.testing.assert_close(terms["loss"].reshape(()), expected)
    assert terms["coherence"] > 0 and {"coherence", "reconstruction"} <= set(learner.training_log[0])
