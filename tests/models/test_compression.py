from __future__ import annotations

import numpy as np
import pytest
import torch

from iufbench.models.compression import normalised_singular_values, semantic_compression, tail_singular_values


@pytest.mark.parametrize("case", ["A", "B"])
def test_equals_the_released_loss(arrays, case):
    d = arrays("04_svd_loss")
    means = [d[f"{case}/av{i}"].mean(dim=-1) for i in range(3)]
    for i, rows in enumerate(means):
        torch.testing.assert_close(normalised_singular_values(rows), d[f"{case}/s{i}"], rtol=1e-3, atol=1e-7)
    for ratio in ("0.1", "1.0", "10.0"):
        loss = semantic_compression(means, float(ratio))
        torch.testing.assert_close(loss, d[f"{case}/loss_ratio_{ratio}"], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("shape", "first"), [((20, 8), 3), ((5, 8), 2), ((4, 8), 4), ((6, 6), 0)])
def test_tail_equals_numpy(shape, first):
    rows = [torch.randn(shape) for _ in range(2)]
    expected = []
    for r in rows:
        s = np.linalg.svd(r.double().numpy(), compute_uv=False)
        expected.append((s / s.sum())[first:].sum())
    assert tail_singular_values(rows, first).item() == pytest.approx(np.mean(expected), abs=1e-6)


def test_gradients_equal_finite_differences():
    rows = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: tail_singular_values([r], 2), rows)
    assert torch.autograd.gradcheck(lambda r: semantic_compression([r], 40.0), rows)


DEGENERATE = {
    "rank one": torch.ones(12, 1) @ torch.randn(1, 32),
    "fewer rows than channels": torch.randn(3, 32),
    "one row": torch.randn(1, 32),
    "repeated values": torch.eye(32)[:12],
    "zero": torch.zeros(12, 32),
    "repeated rows": torch.randn(4, 32).repeat(6, 1),
    "tiny": torch.randn(12, 32) * 1e-20,
}


@pytest.mark.parametrize("rows", DEGENERATE.values(), ids=DEGENERATE.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_gradients_whatever_the_rank(rows, dtype):
    rows = rows.to(dtype, copy=True).requires_grad_()
    for loss in (tail_singular_values([rows, rows], 2), semantic_compression([rows], 30.0)):
        rows.grad = None
        loss.backward()
        assert loss.isfinite() and 0 <= loss <= 1 + 1e-5
        assert rows.grad.isfinite().all()


def test_descent_squeezes_features_into_the_leading_directions():
    rows = torch.randn(40, 16, requires_grad=True)
    optimiser = torch.optim.Adam([rows], lr=0.02)
    start = tail_singular_values([rows], 4).item()
    for _ in range(200):
        optimiser.zero_grad()
        tail_singular_values([rows], 4).backward()
        optimiser.step()
    assert tail_singular_values([rows], 4).item() < 0.2 * start


def test_scale_does_not_matter():
    rows = torch.randn(10, 6)
    torch.testing.assert_close(tail_singular_values([rows * 1000], 2), tail_singular_values([rows], 2))
    with pytest.raises(ValueError, match="negative"):
        tail_singular_values([rows], -1)
