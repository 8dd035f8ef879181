from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from iufbench.models.iuf import IUFNetwork
from iufbench.models.projection import (
    FeatureMatrix,
    direction_weights,
    project_gradients,
    projection_matrix,
    pull_,
)


def test_equals_the_released_projection(arrays):
    d = arrays("05_feature_matrix")
    for case in "ab":
        torch.testing.assert_close(
            projection_matrix(d[f"in/X_{case}"]), d[f"out/P_{case}"], atol=5e-6, rtol=0
        )
        matrix = FeatureMatrix.of(d[f"in/X_{case}"])
        torch.testing.assert_close(matrix.projection(), d[f"out/P_{case}"], atol=5e-6, rtol=0)
    merged = FeatureMatrix.of(d["in/X_a"]).merge(d["in/X_new"])
    torch.testing.assert_close(merged.projection(), d["out/P_merged_a_new"], atol=5e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.svdvals(FeatureMatrix.of(d["in/X_a"]).factor), d["out/S_a"])
    for channels in (8, 256):
        weights = direction_weights(channels).to(d[f"out/channel_weights_{channels}"].dtype)
        torch.testing.assert_close(weights, d[f"out/channel_weights_{channels}"])


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleDict({"a": nn.Linear(12, 8), "b": nn.Linear(5, 8)})
        self.free = nn.Linear(4, 6)


def test_three_constrained_steps_equal_the_released_optimiser(arrays, part):
    d = arrays("03_constrained_sgd_lr1")
    model = Three()
    model.load_state_dict(part(d, "w0/"))
    weights = direction_weights(8).float()
    # Feature rows with these right singular vectors: strengths 8, 7, ... 1 along them.
    strengths = torch.arange(8, 0, -1.0).diag()
    projections = {n: projection_matrix(strengths @ vh) for n, vh in part(d, "in/Vh/").items()}
    for name, vh in part(d, "in/Vh/").items():
        torch.testing.assert_close(projections[name], vh.T @ weights.diag() @ vh, atol=5e-6, rtol=0)
    optimiser = torch.optim.SGD(model.parameters(), lr=float(d["cfg/lr"]))
    for step in (1, 2, 3):
        for name, grad in part(d, f"grad{step}/").items():
            model.get_parameter(name).grad = grad.clone()
        project_gradients(model, projections)
        optimiser.step()
        for name, expected in part(d, f"w{step}/").items():
            torch.testing.assert_close(model.get_parameter(name).data, expected, atol=5e-6, rtol=0, msg=name)


def test_directions_never_seen_are_free():
    rows = torch.randn(3, 10)
    projection = projection_matrix(rows)
    _, _, v = np.linalg.svd(rows.double().numpy())
    gains = [v[k] @ projection.double().numpy() @ v[k] for k in range(10)]
    seen = [math.log(1 + k) / math.log(10) for k in range(3)]
    np.testing.assert_allclose(gains, seen + [1.0] * 7, atol=1e-6)


def test_many_rows_of_low_rank_leave_the_rest_free():
    basis = torch.linalg.qr(torch.randn(10, 10)).Q
    rows = torch.randn(500, 2) @ basis[:2]
    projection = projection_matrix(rows)
    torch.testing.assert_close(basis[2:] @ projection, basis[2:], atol=1e-5, rtol=0)
    for k in range(1, 6):
        part_by_part = FeatureMatrix.of(rows[:k])
        for chunk in rows[k:].split(37):
            part_by_part = part_by_part.merge(chunk)
        torch.testing.assert_close(part_by_part.projection(), projection, atol=1e-4, rtol=0)


def test_merging_bit_by_bit_equals_all_rows_at_once_in_bounded_space():
    channels = 256
    rows = torch.randn(1500, channels) * torch.linspace(3, 0.05, channels)
    matrix, sizes = FeatureMatrix.of(rows[:60]), []
    for chunk in rows[60:].split(180):
        matrix = matrix.merge(chunk)
        sizes.append(matrix.factor.nbytes)
    assert matrix.rows == 1500
    assert max(sizes) == 4 * channels**2
    torch.testing.assert_close(
        torch.linalg.svdvals(matrix.factor), torch.linalg.svdvals(rows), rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(matrix.projection(), projection_matrix(rows), atol=2e-4, rtol=0)
    strongest = torch.linalg.svd(rows.double()).Vh[0].float()
    assert (matrix.projection() @ strongest).norm() < 1e-5


def test_rows_must_be_a_matrix():
    for bad in (torch.zeros(0, 8), torch.zeros(8)):
        with pytest.raises(ValueError, match="feature rows"):
            FeatureMatrix.of(bad)


def test_projected_gradients_do_not_move_outputs_along_the_strongest_direction():
    model = IUFNetwork(8, 2, oasa=False, hidden=16, heads=2, feedforward=32, feature_size=(3, 3))
    model(torch.randn(2, 8, 3, 3)).reconstruction.square().sum().backward()
    rows = {name: torch.randn(40, 16) for name in model.projected_layers()}
    free = model.input_proj.weight.grad.clone()
    project_gradients(model, {name: projection_matrix(r) for name, r in rows.items()})
    for name, layer in model.projected_layers().items():
        strongest = torch.linalg.svd(rows[name]).Vh[0]
        assert (strongest @ layer.weight.grad).norm() < 1e-5 * layer.weight.grad.norm() + 1e-6
        assert (strongest @ layer.bias.grad).abs() < 1e-5 * layer.bias.grad.norm() + 1e-6
    assert torch.equal(model.input_proj.weight.grad, free)
    model.zero_grad()
    project_gradients(model, {name: torch.eye(16) for name in rows})


def test_pull_equals_the_released_one(arrays, part):
    d = arrays("06_ema")
    model = nn.ModuleDict({"l": nn.Linear(5, 7), "bn": nn.BatchNorm2d(4)})
    model.load_state_dict(part(d, "cur/"))
    for step in (1, 2, 3):
        pull_(model, part(d, "old/"), 0.05, include_buffers=True)
        for name, expected in part(d, f"after{step}/").items():
            torch.testing.assert_close(model.state_dict()[name], expected, atol=1e-6, rtol=0, msg=name)


def test_pull_of_parameters_leaves_buffers_alone(arrays, part):
    d = arrays("06_ema")
    model = nn.ModuleDict({"l": nn.Linear(5, 7), "bn": nn.BatchNorm2d(4)})
    model.load_state_dict(part(d, "cur/"))
    pull_(model, part(d, "old/"), 0.05)
    torch.testing.assert_close(model["l"].weight.data, d["after1/l.weight"], atol=1e-6, rtol=0)
    assert torch.equal(model["bn"].running_mean, d["cur/bn.running_mean"])
    assert model["bn"].num_batches_tracked == 37
    with pytest.raises(KeyError, match="weight"):
        pull_(model["bn"], {}, 0.05)


def test_pull_of_a_grown_classifier_holds_the_old_rows_only():
    model = IUFNetwork(8, 2, hidden=16, heads=2, feedforward=32, feature_size=(3, 3))
    old = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    model.classifier.grow(5)
    before = model.classifier.fc[2].weight.detach().clone()
    pull_(model, old, 0.5)
    torch.testing.assert_close(model.classifier.fc[2].weight[:2], before[:2] * 0.5)
    assert torch.equal(model.classifier.fc[2].weight[2:], before[2:])


def test_a_higher_power_holds_more_and_power_0_nothing():
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(projection_matrix(rows, power=0), torch.eye(8))
    _, _, vectors = torch.linalg.svd(rows.double(), full_matrices=False)
    for power in (0.5, 2.0):
        wanted = vectors.T @ direction_weights(8).pow(power).diag() @ vectors
        torch.testing.assert_close(
            FeatureMatrix.of(rows).projection(power), wanted.float(), atol=5e-6, rtol=0
        )


def test_what_is_left_alone_is_not_pulled():
    model, old = Three(), Three().state_dict()
    free = model.free.weight.detach().clone()
    pull_(model, old, 1.0, prefixes_left_alone=("free.",))
    assert torch.equal(model.free.weight, free) and not torch.equal(free, old["free.weight"])
    assert torch.equal(model.layer["a"].weight, old["layer.a.weight"])
