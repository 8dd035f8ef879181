"""Orthogonal low-rank increments: which weights change, and that outputs of old inputs are preserved."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tiny import assembled

from iufbench.learning.low_rank import LowRank

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
THREE = {"protocol": "visa_1_1x2"}


@pytest.fixture(scope="module")
def stages(data, tmp_path_factory):
    """The learner after three experiences, with its plain weights after each."""
    _, parts = assembled("orthogonal_lora", data, tmp_path_factory.mktemp("lora"), **THREE)
    learner, plain, spans = parts.strategy, [], []
    for experience in parts.streams.train:
        learner.train(experience, eval_streams=[])
        adapted = learner.adapted()
        weights = {n: p for n, p in learner.model.named_parameters() if ".parametrizations." not in n}
        weights |= {n: getattr(part, last) for n, (part, last) in adapted.items()}
        plain.append({n: w.detach().clone() for n, w in weights.items()})
        spans.append({n: s.clone() for n, s in learner.spans.items()})
    return parts, plain, spans


def test_an_increment_is_of_low_rank_and_avoids_the_old_span(stages):
    _, plain, spans = stages
    for step in (1, 2):
        moved = 0
        for name, span in spans[step - 1].items():
            change = (plain[step][name] - plain[step - 1][name]).double()
            assert torch.linalg.matrix_rank(change, rtol=1e-4) <= 2
            assert (change @ span.double()).norm() <= 1e-4 * change.norm() + 1e-9
            moved += float(change.norm()) > 0
        assert moved == len(spans[step - 1])


def test_everything_else_stays_as_the_base_left_it(stages):
    _, plain, spans = stages
    rest = [n for n in plain[0] if n not in spans[0]]
    assert rest and all(torch.equal(plain[0][n], plain[2][n]) for n in rest)


def test_the_span_is_orthonormal_grows_and_is_counted(stages):
    parts, _, spans = stages
    for old, new in pairwise(spans):
        for name, span in new.items():
            torch.testing.assert_close(span.T @ span, torch.eye(span.shape[1]), atol=1e-5, rtol=0)
            assert old[name].shape[1] < span.shape[1] <= min(span.shape[0], old[name].shape[1] + 2)
            torch.testing.assert_close(span @ (span.T @ old[name]), old[name], atol=1e-5, rtol=0)
    assert parts.strategy.bytes_kept == sum(4 * s.numel() for s in spans[-1].values())


def test_the_base_is_plain_uniad(data, tmp_path):
    ours, plain = (assembled(s, data, tmp_path, **THREE)[1] for s in ("orthogonal_lora", "uniad"))
    for parts in (ours, plain):
        torch.manual_seed(0)
        parts.strategy.train(parts.streams.train[0], eval_streams=[])
    expected = plain.strategy.model.state_dict()
    found = ours.strategy.model.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def test_inputs_inside_the_span_keep_their_outputs():
    generator = torch.Generator().manual_seed(0)
    span = torch.linalg.qr(torch.randn(6, 2, generator=generator)).Q
    weight = torch.randn(5, 6, generator=generator)
    adapter = LowRank(weight, 2, span, generator)
    assert torch.equal(adapter(weight), weight)
    adapter.b.data.normal_(generator=generator)
    inside, outside = torch.randn(3, 2, generator=generator) @ span.T, torch.randn(3, 6, generator=generator)
    changed = adapter(weight)
    torch.testing.assert_close(inside @ changed.T, inside @ weight.T)
    assert (outside @ changed.T - outside @ weight.T).abs().min() > 1e-3


def test_a_learner_goes_through_a_checkpoint(stages, data, tmp_path):
    parts, _, _ = stages
    torch.save(parts.strategy.state(), tmp_path / "state.pt")
    _, other = assembled("orthogonal_lora", data, tmp_path, **THREE)
    other.strategy.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    x = parts.streams.train[0].resident.features.float()
    models = [p.strategy.model.eval() for p in (parts, other)]
    assert torch.equal(models[0](x).reconstruction, models[1](x).reconstruction)
