"""Same machine, same seed: the same bits, whatever ran before; and randomness comes from separate seeds."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from resuming import TABLES, assert_same_run
from test_resume import command
from tiny import assembled, tiny_run

from iufbench.engine import assembly
from iufbench.support.seeding import Seeds, random_states, seed_everything, set_random_states

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("strategy", ["iuf", "padim"])
def test_what_ran_before_in_the_process_does_not_matter(strategy, data, tmp_path):
    first = tiny_run(strategy, data, tmp_path / "first")
    other = tiny_run("agem", data, tmp_path / "other", seed=5)
    random.random(), np.random.rand(3), torch.rand(3)
    assert_same_run(first, tiny_run(strategy, data, tmp_path / "second"))
    assert (first.path / TABLES[0]).read_bytes() != (other.path / TABLES[0]).read_bytes()


def test_verify_compares_two_runs_of_the_first_experience_and_writes_nothing(data, tmp_path):
    done = command(data, tmp_path / "r", "--verify")
    assert done.exit_code == 0, done.output
    assert "first experience twice" in done.stdout and "same bits" in done.stdout
    assert not (tmp_path / "r").exists()


def test_verify_names_what_differs(data, tmp_path, monkeypatch):
    build, count = assembly.build_strategy, []

    def nudged(*arguments):
        strategy = build(*arguments)
        count.append(1)
        if len(count) == 2:
            with torch.no_grad():
                next(strategy.model.parameters()).view(-1)[0] += 1e-3
        return strategy

    monkeypatch.setattr(assembly, "build_strategy", nudged)
    done = command(data, tmp_path / "r", "--verify")
    assert done.exit_code == 1
    assert "network." in done.stdout and "values differ, by up to" in done.stdout
    assert "image auroc of" in done.stdout or "score of" in done.stdout


def test_seeds_are_separate_and_recorded(data, tmp_path):
    run = tiny_run("finetune", data, tmp_path, seed=3)
    seeds = run.info["seeds"]
    assert seeds == {**Seeds.of(3).as_dict(), "synthetic_data": None}
    assert len(set(seeds.values())) == len(seeds)
    assert not set(Seeds.of(3).as_dict().values()) & set(Seeds.of(4).as_dict().values())


def test_the_order_of_data_depends_on_its_own_seed_alone(data, tmp_path):
    """Random numbers that are drawn elsewhere leave the batches as they are."""

    def batches(disturbed: bool) -> list[list[int]]:
        _, parts = assembled("finetune", data, tmp_path)
        learner, seen = parts.strategy, []
        reference = parts.streams.train[0].resident.features.float()

        class Watch:
            def before_training_iteration(self, strategy, **kwargs):
                distance = (strategy.mbatch.x[:, None] - reference[None]).abs().flatten(2).sum(2)
                seen.append(distance.argmin(1).tolist())
                if disturbed:
                    torch.rand(5)

        if disturbed:
            torch.manual_seed(77)
        learner.plugins.insert(0, Watch())
        learner.train(parts.streams.train[0], eval_streams=[])
        return seen

    assert batches(disturbed=False) == batches(disturbed=True)


def test_random_states_survive_a_checkpoint(tmp_path):
    seed_everything(9)
    order = torch.Generator().manual_seed(4)
    random.gauss(0, 1), np.random.randn(3), torch.randn(3), torch.randperm(5, generator=order)
    torch.save(random_states(order), tmp_path / "states.pt")

    def draws():
        numbers = [random.gauss(0, 1), random.random(), *np.random.randn(3), *torch.randn(3).tolist()]
        return numbers + torch.randperm(9, generator=order).tolist()

    before = draws()
    assert draws() != before
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True), order)
    assert draws() == before
