"""Every registered strategy: it trains, is deterministic, resumes, and changes nothing frozen."""

from __future__ import annotations

import signal

import pytest
import torch
from resuming import Killed, assert_same_run, interruption, reassembly
from tiny import assembled, tiny_run

from iufbench.cards.registry import card_paths
from iufbench.engine import runner
from iufbench.reporting.store import find_runs
from iufbench.streams.streams import PeekingError

STRATEGIES = sorted(card_paths("strategy"))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_trains_and_evaluates(strategy, three_objects):
    run = three_objects(strategy)
    steps = 1 if run.info["recipe"]["stream"] == "joint" else 2
    assert len(run.experiences) == steps
    for level in ("image", "pixel"):
        assert run.matrix(level).complete
    costs = run.info["costs"]
    assert len(costs["bytes_kept"]) == len(costs["replayed_images"]) == steps
    assert costs["bytes_kept"] == [bytes_beside_network(run, number) for number in range(steps)]
    assert set(run.info["strategy"]["uses"]) >= {"object_id_at_training", "object_id_at_test", "gradients"}


def bytes_beside_network(run, experience: int) -> int:
    """Computed from the checkpoint: the carried state, and the copies made by the next experience."""
    state = torch.load(run.path / f"checkpoints/experience{experience}.pt", weights_only=True)
    update = run.info["recipe"]["options"].get("update", {"enabled": False})
    copies = run.info["strategy"]["name"] == "lwf" or (update["enabled"] and update["pull"] > 0)
    sides = [m["factor"].shape[1] for m in state["memory"].get("matrices", {}).values()]
    projections = sum(4 * side * side for side in sides)
    return total_bytes(state["memory"]) + copies * total_bytes(state["network"]) + projections


def total_bytes(value) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (dict, list, tuple)):
        return sum(map(total_bytes, value.values() if isinstance(value, dict) else value))
    return 0


def unfinished(results):
    (run,), _ = find_runs(results, include_incomplete=True)
    return run


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_interrupted_anywhere_ends_with_the_same_bytes(
    strategy, data, three_objects, tmp_path, monkeypatch
):
    """Interrupted in the base's second epoch, then killed in the increment's: the same command resumes it.

    Equal bytes show as well that training repeats itself.
    """
    whole = three_objects(strategy)
    plan, parts = assembled(strategy, data, tmp_path)
    monkeypatch.setattr(runner, "assemble", reassembly(parts))
    epoch = 2 if plan.learner.uses.gradients else 1
    stop = interruption(monkeypatch, 0, epoch, iteration=2, signal_=signal.SIGTERM)
    with stop, pytest.raises(KeyboardInterrupt):
        tiny_run(strategy, data, tmp_path / "stopped", checkpoint_epochs=1)
    assert unfinished(tmp_path / "stopped").info["status"] == "interrupted"
    trained = [t for t, images in enumerate(whole.info["costs"]["trained_images"]) if images]
    if trained[1:]:  # joint has no increment, frozen trains none
        with interruption(monkeypatch, 1, epoch), pytest.raises(Killed):
            tiny_run(strategy, data, tmp_path / "stopped", checkpoint_epochs=1)
    resumed = tiny_run(strategy, data, tmp_path / "stopped")

    # What has a single epoch starts it again, and the base's is the beginning.
    assert resumed.info["resumed"] == trained[0 if plan.learner.uses.gradients else 1 :]
    assert_same_run(whole, resumed)


def test_a_kill_after_the_last_epoch_of_an_experience_costs_none(data, tmp_path, monkeypatch):
    """What a memory learnt in its only epoch is part of the state from which it is resumed."""
    for strategy in ("padim", "ewc"):
        _, parts = assembled(strategy, data, tmp_path)
        monkeypatch.setattr(runner, "assemble", reassembly(parts))
        whole = tiny_run(strategy, data, tmp_path / "whole")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(type(parts.strategy), "_after_training_exp", killed)
            tiny_run(strategy, data, tmp_path / "stopped", checkpoint_epochs=1)
        with interruption(monkeypatch, 0, 1):  # would raise if its training began again
            assert_same_run(whole, tiny_run(strategy, data, tmp_path / "stopped"))


def killed(strategy, **kwargs):
    raise Killed


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_seed_gives_another_result(strategy, data, three_objects, tmp_path):
    runs = three_objects(strategy), tiny_run(strategy, data, tmp_path, seed=1)
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
    _, parts = assembled(strategy, data, tmp_path)

    class Peek:
        def before_training_epoch(self, strategy, **kwargs):
            strategy.experience.origin_stream.benchmark.test_stream  # noqa: B018

        def after_training_exp(self, strategy, **kwargs):
            self.before_training_epoch(strategy)

    parts.strategy.plugins.insert(0, Peek())
    with pytest.raises(PeekingError):
        parts.strategy.train(parts.streams.train[0], eval_streams=[])
