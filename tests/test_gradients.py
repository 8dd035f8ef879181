"""Gradient constraints: the projected gradients of A-GEM and GPM have their defining properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import assembled, tiny_plan

from iufbench.learning import subspaces
from iufbench.models.uniad import UniAD, reconstruction_loss
from iufbench.strategies import agem
from iufbench.support.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
vectors = st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6).map(torch.tensor)


def split(vector):
    return [vector[:4].reshape(2, 2), vector[4:]]


# A-GEM ------------------------------------------------------------------------------------------------------


@given(vectors, vectors)
def test_agem_takes_the_nearest_gradient_without_conflict(gradient, reference):
    without_conflict = agem.without_conflict
    found = torch.cat([g.flatten() for g in without_conflict(split(gradient), split(reference))]).double()
    g, r = gradient.double(), reference.double()
    assert float(found @ r) >= -1e-4 * (1 + float(g.norm() * r.norm()))
    if float(g @ r) >= 0:
        assert torch.equal(found, g)
    else:
        # The nearest point of the half space lies on its border: what is left of g after a fit by r.
        fit = np.linalg.lstsq(r[:, None].numpy(), g.numpy(), rcond=None)[0]
        torch.testing.assert_close(found, g - fit.item() * r, rtol=1e-4, atol=1e-4)


def test_agem_steps_never_point_against_the_memory(data, tmp_path):
    """Without noise and with the whole memory in every iteration the reference gradient can be recomputed."""
    settings = ["network.dropout=0", "network.jitter_scale=0", "base.epochs=40", "base.lr=1e-2"]
    settings += ["increment.epochs=8", "increment.lr=1e-2"]

    def smallest_cosine(strategy, extra=()):
        _, parts = assembled(strategy, data, tmp_path, settings=(*settings, *extra))
        learner, (first, second) = parts.strategy, parts.streams.train
        learner.train(first, eval_streams=[])
        found = []

        class Watch:
            def before_update(self, strategy, **kwargs):
                parameters = list(strategy.model.parameters())
                output = strategy.model(first.resident.features)
                reference = torch.autograd.grad(reconstruction_loss(output), parameters)
                ours = torch.cat([p.grad.flatten() for p in parameters])
                theirs = torch.cat([r.flatten() for r in reference])
                found.append(float(ours @ theirs / (ours.norm() * theirs.norm())))

        learner.plugins.insert(0, Watch())
        learner.train(second, eval_streams=[])
        return min(found)

    assert smallest_cosine("uniad") < -0.1  # there are conflicts to solve
    assert smallest_cosine("agem", ["memory.batch=100", "memory.precision=float32"]) > -1e-3


# GPM --------------------------------------------------------------------------------------------------------


def test_a_basis_captures_the_energy_and_keeps_what_it_had():
    grown_basis = subspaces.grown_basis
    rng = np.random.default_rng(0)
    basis = None
    for energy in (0.8, 0.95, 0.95):
        x = rng.normal(size=(50, 12)) * np.geomspace(1, 0.01, 12) @ rng.normal(size=(12, 12))
        before, basis = basis, grown_basis(basis, torch.from_numpy(x.T @ x), energy)
        m = basis.double().numpy()
        np.testing.assert_allclose(m.T @ m, np.eye(m.shape[1]), atol=1e-5)
        captured = np.square(x @ m).sum() / np.square(x).sum()
        assert captured >= energy - 1e-6
        # One direction fewer would not do: the basis is the smallest that holds the old one.
        old = np.zeros((12, 0)) if before is None else before.double().numpy()
        rest = x - x @ old @ old.T
        values = np.linalg.svd(rest, compute_uv=False) ** 2
        added = m.shape[1] - old.shape[1]
        lacking = np.square(x @ old).sum() + values[: max(added - 1, 0)].sum()
        assert added == 0 or lacking < energy * np.square(x).sum()
        np.testing.assert_allclose(m @ (m.T @ old), old, atol=1e-5)


def test_full_energy_adds_no_direction_without_inputs():
    grown_basis = subspaces.grown_basis
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wide = torch.cat([x, torch.zeros(40, 5, dtype=torch.float64)], dim=1)
    basis = grown_basis(None, wide.T @ wide, 1.0)
    assert basis.shape == (8, 3) and float(basis[3:].abs().max()) < 1e-6
    assert grown_basis(basis, wide.T @ wide, 1.0).shape == (8, 3)
    assert grown_basis(None, wide.T @ wide, 0.0).shape == (8, 0)


def test_a_projected_step_changes_no_output_for_old_inputs():
    """All linear maps of UniAD at once: their inputs must be correct, including attention."""
    torch.manual_seed(0)
    shape = {"feature_size": (2, 3), "heads": 2, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}
    model = UniAD(channels=20, hidden=32, feedforward=40, **shape).double().eval()
    old, new = torch.randn(2, 2, 20, 2, 3, dtype=torch.float64)
    sites = subspaces.linear_sites(model)
    with subspaces.watched_inputs(model) as moments:
        was = model(old).reconstruction
    bases = {n: subspaces.grown_basis(None, m, 1.0) for n, m in moments.items()}
    assert set(bases) == set(sites)
    assert all(b.shape[1] < b.shape[0] for b in bases.values())
    other = model(new).reconstruction
    linear = {name for site in sites.values() for name in (site.weight, site.bias)}
    steps = {n: 0.1 * torch.randn_like(model.get_parameter(n)) for n in linear}
    subspaces.project_(steps, sites, bases)
    again = {n: s.clone() for n, s in steps.items()}
    subspaces.project_(again, sites, bases)
    with torch.no_grad():
        for name, step in steps.items():
            torch.testing.assert_close(again[name], step, rtol=1e-4, atol=1e-6)
            model.get_parameter(name).add_(step)
    assert float((model(old).reconstruction - was).abs().max()) < 1e-4
    assert float((model(new).reconstruction - other).abs().max()) > 0.1


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 1e-3), ("sgd", 1.0)])
def test_gpm_steps_avoid_old_inputs_with_any_optimiser(optimizer, rate, data, tmp_path):
    settings = (f"increment.optimizer={optimizer}", f"increment.lr={rate}", "gpm.energy=0.9")
    _, parts = assembled("gpm", data, tmp_path, settings=settings)
    learner, (first, second) = parts.strategy, parts.streams.train
    sites = subspaces.linear_sites(learner.model)
    learner.train(first, eval_streams=[])
    before = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    bases = {n: b.clone() for n, b in learner.bases.items()}
    learner.train(second, eval_streams=[])
    change = {n: p.detach() - before[n] for n, p in learner.model.named_parameters()}
    moved = []
    for name, site in sites.items():
        rows = slice(site.start, site.stop)
        step = torch.cat([change[site.weight][rows], change[site.bias][rows, None]], dim=1)
        moved.append(float(step.norm()))
        assert float((step @ bases[name]).norm()) < 1e-5
    assert max(moved) > 1e-2
    linear = {name for site in sites.values() for name in (site.weight, site.bias)}
    assert not any(change[n].any() for n in change if n not in linear)
    assert all(learner.bases[n].shape[1] >= b.shape[1] for n, b in bases.items())
    assert learner.bytes_kept == sum(4 * b.numel() for b in learner.bases.values())


def test_more_energy_keeps_old_reconstructions_better(data, tmp_path):
    distances = []
    for energy in (0.0, 0.9, 0.99):
        _, parts = assembled("gpm", data, tmp_path, settings=(f"gpm.energy={energy}", "increment.epochs=10"))
        learner, (first, second) = parts.strategy, parts.streams.train
        reconstructions = []
        for experience in (first, second):
            learner.train(experience, eval_streams=[])
            learner.model.eval()
            with torch.no_grad():
                reconstructions.append(learner.model(first.resident.features).reconstruction)
        distances.append(float((reconstructions[1] - reconstructions[0]).square().mean()))
    assert distances == sorted(distances, reverse=True) and len(set(distances)) == 3


@pytest.mark.parametrize("setting", ["gpm.energy=1.2", "gpm.energy=-0.1", "gpm.samples=0"])
def test_impossible_options_name_their_key(setting, data, tmp_path):
    with pytest.raises(InputError, match=rf"--set.*{setting.partition('=')[0]}"):
        tiny_plan("gpm", data, tmp_path, settings=(setting,))
