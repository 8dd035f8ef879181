"""Every registered strategy, unseen: it trains, repeats itself, resumes, and moves nothing frozen."""

from __future__ import annotations

import signal

import pytest
import torch
from resuming import Killed, assert_same_run, interruption, reassembly
from tiny import assembled, tiny_run

from iufbench.cards.registry import card_paths
from iufbench.engine import runner
from iufbench.reporting.store import find_runs

STRATEGIES = sorted(card_paths("strategy"))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_trains_evaluates_and_repeats_itself(strategy, data, tmp_path):
    first = tiny_run(strategy, data, tmp_path / "a")
    second = tiny_run(strategy, data, tmp_path / "b")
    steps = 1 if first.info["recipe"]["stream"] == "joint" else 2
    assert len(first.experiences) == steps
    for level in ("image", "pixel"):
        assert first.matrix(level).complete
    for name in ("metrics.csv", "scores.csv.gz", "train_log.csv"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    costs = first.info["costs"]
    assert len(costs["bytes_kept"]) == len(costs["replayed_images"]) == steps
    assert set(first.info["strategy"]["uses"]) >= {"object_id_at_training", "object_id_at_test", "gradients"}


def unfinished(results):
    (run,), _ = find_runs(results, include_incomplete=True)
    return run


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_interrupted_anywhere_ends_with_the_same_bytes(strategy, data, tmp_path, monkeypatch):
    """Stopped inside an epoch of the base, then killed inside the increment: the same command goes on."""
    plan, parts = assembled(strategy, data, tmp_path)
    monkeypatch.setattr(runner, "assemble", reassembly(parts))
    whole = tiny_run(strategy, data, tmp_path / "whole")

    stop = interruption(monkeypatch, experience=0, iteration=2, signal_=signal.SIGTERM)
    with stop, pytest.raises(KeyboardInterrupt):
        tiny_run(strategy, data, tmp_path / "stopped")
    assert unfinished(tmp_path / "stopped").info["status"] == "interrupted"
    if whole.info["costs"]["trained_images"][1:] > [0]:  # joint has no increment, frozen trains none
        last = 3 if plan.learner.uses.gradients else 1
        with interruption(monkeypatch, experience=1, iteration=last), pytest.raises(Killed):
            tiny_run(strategy, data, tmp_path / "stopped", checkpoint_epochs=1)
    resumed = tiny_run(strategy, data, tmp_path / "stopped")

    trained = [t for t, images in enumerate(whole.info["costs"]["trained_images"]) if images]
    assert resumed.info["resumed"] == trained
    assert_same_run(whole, resumed)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_seed_gives_another_result(strategy, data, tmp_path):
    runs = [tiny_run(strategy, data, tmp_path, seed=seed) for seed in (0, 1)]
    assert not runs[0].scores()["score"].equals(runs[1].scores()["score"])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_trainable_parameter_learns_and_nothing_frozen_moves(strategy, data, tmp_path):
    plan, parts = assembled(strategy, data, tmp_path)
    learner = parts.strategy
    if not plan.learner.uses.gradients:
        pytest.skip("has no gradients")
    backbone_before = {k: v.clone() for k, v in parts.backbone._model.state_dict().items()}
    seen: dict[str, float] = {}

    class Watch:
        def before_update(self, strategy, **kwargs):
            for name, parameter in strategy.model.named_parameters():
                if parameter.requires_grad and parameter.grad is not None:
                    seen[name] = seen.get(name, 0.0) + float(parameter.grad.abs().sum())

    learner.plugins.insert(0, Watch())
    for experience in parts.streams.train:
        learner.train(experience, eval_streams=[])
        for group in learner.optimizer.param_groups:
            assert all(p.requires_grad for p in group["params"])
    trainable = {n for n, p in learner.model.named_parameters() if p.requires_grad}
    # A classifier that knows one object has nothing to learn; both protocols here give it two.
    silent = {n for n in trainable if seen.get(n, 0.0) == 0.0}
    assert not silent
    after = parts.backbone._model.state_dict()
    assert all(torch.equal(backbone_before[k], after[k]) for k in backbone_before)
    assert not any(m.training for m in parts.backbone._model.modules())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_evaluation_changes_no_weight(strategy, data, tmp_path):
    _, parts = assembled(strategy, data, tmp_path)
    parts.strategy.train(parts.streams.train[0], eval_streams=[])
    before = {k: v.clone() for k, v in parts.strategy.model.state_dict().items()}
    parts.evaluation.start(0, 2)
    parts.strategy.eval([parts.streams.test[0]])
    after = parts.strategy.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_cannot_reach_other_experiences(strategy, data, tmp_path):
    from iufbench.cards.registry import room

    peeking = room("benchmarks.streams").PeekingError
    _, parts = assembled(strategy, data, tmp_path)

    class Peek:
        def before_training_epoch(self, strategy, **kwargs):
            strategy.experience.origin_stream.benchmark.test_stream  # noqa: B018

        def after_training_exp(self, strategy, **kwargs):
            self.before_training_epoch(strategy)

    parts.strategy.plugins.insert(0, Peek())
    with pytest.raises(peeking):
        parts.strategy.train(parts.streams.train[0], eval_streams=[])
