"""A captured iteration computes what an eager one does; on the CPU a recorder stands in for CUDA graphs."""

from __future__ import annotations

import pytest
import torch
from recorded import Recorder
from tiny import assembled

from iufbench.cards.registry import card_paths, load_class
from iufbench.cards.strategies import load_strategy
from iufbench.learning.step import Step, why_eager
from iufbench.support.errors import RunError
from iufbench.support.seeding import seed_everything

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

TRAINED = sorted(
    name
    for name, path in card_paths("strategy").items()
    if load_class(load_strategy(name).content["learner"], path).uses.gradients
)
# 9 epochs of 3 batches (12 images) and 13 of 2 (6 images), the last of each epoch smaller.
SETTINGS = (
    "base.batch_size=5",
    "increment.batch_size=5",
    "base.epochs=9",
    "increment.epochs=13",
    "base.schedule=cosine",
    "base.warmup_iterations=3",
    "network.dropout=0.1",
)


def exact(learner):
    """In float64: Adam divides gradients that are zero but for rounding by their own size."""
    learner.model.double()
    if hasattr(learner, "_pixels"):
        learner._pixels = tuple(tensor.double() for tensor in learner._pixels)
    return learner


def trained(strategy, data, tmp_path, capture=None, settings=SETTINGS):
    """The learner after 53 iterations of two experiences."""
    _, parts = assembled(strategy, data, tmp_path, settings=settings)
    learner = exact(parts.strategy)
    learner.capture = capture
    for number, experience in enumerate(parts.streams.train):
        seed_everything(number)
        learner.train(experience, eval_streams=[])
    return learner


@pytest.mark.parametrize("strategy", TRAINED)
def test_captured_and_eager_agree(strategy, data, tmp_path):
    """Static inputs, state after the warm-up, smaller last batches, rates, new classes, remembered images."""
    capture = Recorder()
    eager = trained(strategy, data, tmp_path)
    captured = trained(strategy, data, tmp_path, capture)
    if why_eager(eager) is not None:
        assert capture.captures == 0
        return
    halves = 2 if captured.clock.train_exp_counter and "compression" in eager.training_log[-1] else 1
    assert capture.captures >= 1 and capture.replays >= 20 * halves
    ours, theirs = captured.model.state_dict(), eager.model.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert len(captured.training_log) == len(eager.training_log)
    for one, other in zip(captured.training_log, eager.training_log):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert captured.replayed_images == eager.replayed_images
    assert captured.bytes_kept == eager.bytes_kept


def learner_of(data, tmp_path, strategy="uniad", settings=(), **changes):
    _, parts = assembled(strategy, data, tmp_path, settings=settings)
    for name, value in changes.items():
        object.__setattr__(parts.strategy.context, name, value)
    parts.strategy.capture = Recorder()
    return parts.strategy, parts.streams.train[0]


class Inside:
    def before_update(self, strategy, **kwargs):
        pass


def test_what_cannot_be_captured_says_why_and_is_eager(data, tmp_path):
    coin, _ = learner_of(data, tmp_path, settings=("network.jitter_probability=0.5",))
    assert "drawn on the CPU" in why_eager(coin)
    listening, experience = learner_of(data, tmp_path)
    assert why_eager(listening) is None
    listening.plugins.append(Inside())
    assert "plugin Inside acts inside" in why_eager(listening)
    listening.train(experience, eval_streams=[])
    assert listening.capture.captures == 0


def test_a_strategy_that_waits_for_the_device_falls_back_and_trains_as_it_would(data, tmp_path):
    """Such as one of a user's own, with a branch on a number: known only when the capture fails."""
    results = []
    for capture in (None, Recorder()):
        learner, experience = learner_of(data, tmp_path)
        exact(learner).capture = capture
        original = learner.losses

        def losses(original=original):
            terms = original()
            return terms if float(terms["reconstruction"].detach()) >= 0 else {}

        learner.losses = losses
        seed_everything(0)
        learner.train(experience, eval_streams=[])
        results.append(learner.model.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_graph_that_was_asked_for_and_cannot_be_is_an_error(data, tmp_path):
    learner, experience = learner_of(data, tmp_path, step="graph")
    learner.plugins.append(Inside())
    with pytest.raises(RunError, match=r"--step graph: .*plugin Inside"):
        learner.train(experience, eval_streams=[])
    learner, experience = learner_of(data, tmp_path, step="eager")
    learner.train(experience, eval_streams=[])
    assert learner.capture.captures == 0
    assert Step(learner).reason is None


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", TRAINED)
def test_a_cuda_graph_and_eager_agree(strategy, data, tmp_path):
    """Without noise, which a graph may draw in another order."""
    settings = (*SETTINGS, "network.dropout=0", "network.jitter_scale=0")
    found = {}
    for step in ("eager", "auto"):
        _, parts = assembled(
            strategy, data, tmp_path, settings=settings, device="cuda", precision="fp32", step=step
        )
        learner = parts.strategy
        for number, experience in enumerate(parts.streams.train):
            seed_everything(number)
            learner.train(experience, eval_streams=[])
        found[step] = learner.model.state_dict()
    for name, value in found["eager"].items():
        torch.testing.assert_close(found["auto"][name], value, rtol=1e-3, atol=1e-4, msg=name)
