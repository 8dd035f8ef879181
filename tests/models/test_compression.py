from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from iufbench.models.compression import (
    RecentRows,
    StaticRows,
    gram_matrices,
    normalised_singular_values,
    semantic_compression,
    tail_by_products,
    tail_singular_values,
)


def from_gram(recent, rows, first):
    return tail_singular_values(recent.with_new(rows), first)


def from_products(recent, rows, first):
    return tail_by_products(StaticRows(recent.limit, recent.batches).joined(rows), first)


@pytest.mark.parametrize("case", ["A", "B"])
def test_equals_the_released_loss(arrays, case):
    d = arrays("04_svd_loss")
    means = [d[f"{case}/av{i}"].mean(dim=-1) for i in range(3)]
    for i, rows in enumerate(means):
        (found,) = normalised_singular_values(gram_matrices([rows]))
        values = d[f"{case}/s{i}"]  # of float32 rows: fewer where there are fewer rows than channels
        torch.testing.assert_close(found[: len(values)].float(), values, rtol=1e-3, atol=1e-7)
    for ratio in ("0.1", "1.0", "10.0"):
        loss = semantic_compression(gram_matrices(means), float(ratio))
        torch.testing.assert_close(loss.float(), d[f"{case}/loss_ratio_{ratio}"], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("shape", "first"), [((20, 8), 3), ((5, 8), 2), ((4, 8), 4), ((6, 6), 0)])
def test_tail_equals_numpy(shape, first):
    rows = [torch.randn(shape) for _ in range(2)]
    expected = []
    for r in rows:
        s = np.linalg.svd(r.double().numpy(), compute_uv=False)
        expected.append((s / s.sum())[first:].sum())
    assert tail_singular_values(gram_matrices(rows), first).item() == pytest.approx(
        np.mean(expected), abs=1e-6
    )


def test_gradients_equal_finite_differences():
    rows = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: tail_singular_values(gram_matrices([r]), 2), rows)
    assert torch.autograd.gradcheck(lambda r: semantic_compression(gram_matrices([r]), 40.0), rows)


@pytest.mark.parametrize("batches", [1, 4])
@pytest.mark.parametrize(
    ("form", "decades"), [(from_gram, 1), (from_gram, 4), (from_products, 1), (from_products, 6)]
)
def test_values_and_gradients_equal_those_of_svdvals(form, decades, batches):
    """The oracle differentiates the singular values of all rows; here only the new ones have a gradient."""
    scales = torch.logspace(0, -decades, 32, dtype=torch.float64)
    old = [torch.randn(3, 24, 32, dtype=torch.float64) * scales for _ in range(batches)]
    new = [(torch.randn(24, 32, dtype=torch.float64) * scales).requires_grad_() for _ in range(3)]
    recent = RecentRows(96)
    for batch in old:
        recent.with_new(list(batch))
    loss = form(recent, new, 8)
    whole = [torch.cat([*(batch[i] for batch in old), new[i]]) for i in range(3)]
    values = [torch.linalg.svdvals(rows) for rows in whole]
    expected = torch.stack([(v / v.sum())[8:].sum() for v in values]).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    for ours, theirs in zip(torch.autograd.grad(loss, new), torch.autograd.grad(expected, new)):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-6


@pytest.mark.parametrize(("gap", "worst"), [(1e-1, 1e-9), (1e-2, 1e-9), (1e-3, 1e-6)])
def test_products_tell_close_singular_values_apart(gap, worst):
    """The last value of the strongest and the first of the tail, at 1e-4 of the largest."""
    values = torch.cat([torch.logspace(0, -4, 8), torch.logspace(-4, -7, 25)[1:]]).double()
    values[8] = values[7] * (1 - gap)
    left, right = (torch.linalg.qr(torch.randn(n, 32, dtype=torch.float64)).Q for n in (200, 32))
    rows = (left * values) @ right.T
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    loss = tail_by_products(ours[None], 8)
    found = torch.linalg.svdvals(theirs)
    expected = (found / found.sum())[8:].sum()
    assert loss.item() == pytest.approx(expected.item(), rel=worst)
    (gradient,), (oracle,) = torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs)
    assert float((gradient - oracle).norm() / oracle.norm()) < worst


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*arguments, **(keywords or {}))


def test_products_neither_read_values_nor_compute_eigenvalues():
    """Both make the CPU wait for a GPU."""
    rows = torch.randn(2, 40, 16, dtype=torch.float64, requires_grad=True)
    with Operations() as seen:
        tail_by_products(rows, 4).backward()
    assert {"bmm", "baddbmm"} <= seen.names
    waiting = {"_local_scalar_dense", "nonzero", "equal", "_to_copy"}
    assert not waiting & seen.names and not any(n.startswith(("_linalg", "linalg_eig")) for n in seen.names)
    with Operations() as seen:
        tail_singular_values(gram_matrices(list(rows)), 4)
    assert "_linalg_eigh" in seen.names


@pytest.mark.parametrize("limit", [0, 5, 12, 100])
def test_recent_rows_are_those_of_the_last_batches(limit):
    recent, static, batches = RecentRows(limit), StaticRows(limit), []
    for size in (4, 4, 2, 4, 8, 1, 4, 4, 4, 2):
        rows = [torch.randn(size, 6) for _ in range(2)]
        whole = [torch.cat([*(b[i] for b in batches), rows[i]]) for i in range(2)]
        torch.testing.assert_close(recent.with_new(rows), gram_matrices(whole), rtol=1e-12, atol=1e-12)
        joined = static.joined(rows)
        assert joined.shape[1] in (size, limit + size)
        torch.testing.assert_close(gram_matrices(joined), gram_matrices(whole), rtol=1e-12, atol=1e-12)
        static.keep(torch.stack(rows))
        batches.append(rows)
        while sum(len(b[0]) for b in batches) > limit:
            batches.pop(0)
        assert [b.shape[1] for b in recent.batches] == [len(b[0]) for b in batches]
        assert all(map(torch.equal, static.batches, recent.batches))
        assert len(static.batches) == len(recent.batches)
    resumed = RecentRows(limit, recent.batches)
    recent.refresh()
    rows = [torch.randn(3, 6) for _ in range(2)]
    assert torch.equal(recent.with_new(rows), resumed.with_new(rows))
    again = StaticRows(limit, static.batches)
    static.reset(static.batches)
    assert torch.equal(static.joined(rows), again.joined(rows))
    static.reset()
    assert static.batches == [] and not static.joined(rows)[:, :-3].any()


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
def test_finite_gradients_for_any_rank(rows, dtype):
    rows = rows.to(dtype, copy=True).requires_grad_()
    for loss in (
        tail_singular_values(gram_matrices([rows, rows]), 2),
        semantic_compression(gram_matrices([rows]), 30.0),
        tail_by_products(torch.stack([rows, rows]).double(), 2),
    ):
        rows.grad = None
        loss.backward()
        assert loss.isfinite() and 0 <= loss <= 1 + 1e-5
        assert rows.grad.isfinite().all()


def test_descent_squeezes_features_into_the_leading_directions():
    rows = torch.randn(40, 16, requires_grad=True)
    optimiser = torch.optim.Adam([rows], lr=0.02)
    start = tail_singular_values(gram_matrices([rows]), 4).item()
    for _ in range(200):
        optimiser.zero_grad()
        tail_singular_values(gram_matrices([rows]), 4).backward()
        optimiser.step()
    assert tail_singular_values(gram_matrices([rows]), 4).item() < 0.2 * start


def test_scale_does_not_matter():
    rows = torch.randn(10, 6)
    small, large = (tail_by_products(rows[None].double() * scale, 2) for scale in (1e-30, 1e30))
    torch.testing.assert_close(small, large)
    torch.testing.assert_close(
        tail_singular_values(gram_matrices([rows * 1000]), 2), tail_singular_values(gram_matrices([rows]), 2)
    )
    with pytest.raises(ValueError, match="negative"):
        tail_singular_values(gram_matrices([rows]), -1)
    with pytest.raises(ValueError, match="negative"):
        tail_by_products(rows[None].double(), -1)
