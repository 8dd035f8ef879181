"""Dropout drops as often as it says, keeps the mean, and repeats itself; attention with it is attention."""

from __future__ import annotations

import pytest
import torch

from iufbench.models import attention
from iufbench.models.attention import attend
from iufbench.models.dropout import Dropout, dropout


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1_000_003,), (4, 250, 1001)])
def test_it_drops_as_often_as_it_says_and_keeps_the_mean(probability, shape):
    torch.manual_seed(0)
    out = dropout(torch.ones(shape), probability)
    count = out.numel()
    noise = (probability * (1 - probability) / count) ** 0.5
    share = float((out == 0).double().mean())
    assert abs(share - probability) < 5 * noise + 1 / 2**17
    assert abs(float(out.double().mean()) - 1) < 6 * noise / (1 - probability) + 1e-4
    assert len(out.unique()) == 2


def test_neighbours_are_dropped_independently():
    """Four values share one random number: a block of them must not fall together."""
    torch.manual_seed(0)
    gone = (dropout(torch.ones(400_000), 0.5) == 0).view(-1, 4)
    patterns = (gone * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16)
    assert patterns.min() > 5700 and patterns.max() < 6800  # 6250 each, 77 is one standard deviation


def test_gradients_pass_where_values_do_and_the_seed_decides():
    torch.manual_seed(3)
    x = torch.randn(5, 7, requires_grad=True)
    out = dropout(x, 0.3)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), out.detach())
    torch.manual_seed(3)
    torch.randn(5, 7)
    assert torch.equal(dropout(x.detach(), 0.3), out.detach())
    assert not torch.equal(dropout(x.detach(), 0.3), out.detach())


def test_nothing_is_dropped_in_evaluation_or_at_probability_zero():
    x = torch.randn(3, 4)
    state = torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), state)


def inputs(kind: str = "bool", dtype: torch.dtype = torch.float32):
    q, k, v = torch.randn(3, 7, 9, 8, dtype=dtype)
    allowed = torch.rand(9, 9) > 0.3
    allowed.fill_diagonal_(True)
    return q, k, v, allowed if kind == "bool" else None


@pytest.mark.parametrize("kind", ["none", "bool"])
def test_attention_with_dropout_is_attention_on_average(kind):
    torch.manual_seed(0)
    q, k, v, mask = inputs(kind)
    fused = attend(q, k, v, 2, mask=mask)
    torch.testing.assert_close(attend(q, k, v, 2, mask=mask, dropout=1e-9), fused)  # too rare to drop any
    mean = torch.stack([attend(q, k, v, 2, mask=mask, dropout=0.1) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, fused, atol=0.05, rtol=0)


def written_out(q, k, v, heads, mask, probability):
    """The same by torch's own operations and their gradients, on the whole batch at once."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return (dropout(logits.softmax(-1), probability) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kind", ["none", "bool"])
@pytest.mark.parametrize("shared", [False, True], ids=["query each", "one query for all"])
@pytest.mark.parametrize("images", [1, 3, 100])
def test_images_in_parts_give_the_gradients_of_the_whole_batch(kind, shared, images, monkeypatch):
    monkeypatch.setattr(attention, "_CACHED_WEIGHTS", images * 2 * 9 * 9)
    results = []
    for function in (attend, written_out):
        torch.manual_seed(0)
        q, k, v, mask = inputs(kind)
        leaves = [t.requires_grad_() for t in (q[:1].clone() if shared else q, k, v)]
        out = function(leaves[0].expand(7, -1, -1), k, v, 2, mask, 0.2)
        (out * torch.randn(out.shape)).sum().backward()
        results.append((out, *(leaf.grad for leaf in leaves)))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_of_attention_with_dropout_are_those_of_differences():
    torch.manual_seed(0)
    q, k, v, mask = inputs(dtype=torch.float64)

    def attention_with_seed(*tensors):
        torch.manual_seed(5)
        return attend(*tensors, 2, mask=mask, dropout=0.2)

    assert torch.autograd.gradcheck(attention_with_seed, [t.requires_grad_() for t in (q, k, v)])
