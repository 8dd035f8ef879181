"""Upper bounds: which images and weights cumulative and separate training use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import assembled, tiny_run

from iufbench.data.resident import Batch

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Watch:
    """Records the inputs of every iteration."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def before_training_iteration(self, strategy, **kwargs):
        self.batches.append(strategy.mbatch)


def train(strategy, data, tmp_path, *settings, **request):
    _, parts = assembled(strategy, data, tmp_path, settings=settings, **request)
    watch = Watch()
    parts.strategy.plugins.insert(0, watch)
    seen = []
    for experience in parts.streams.train:
        watch.batches = []
        parts.strategy.train(experience, eval_streams=[])
        seen.append(Batch.concatenate(watch.batches))
    return parts, seen


def sorted_sums(features: torch.Tensor) -> torch.Tensor:
    return features.double().flatten(1).sum(dim=1).sort().values


def test_the_last_experience_of_cumulative_sees_every_image(data, tmp_path):
    parts, seen = train("cumulative", data, tmp_path)
    images = torch.cat([e.resident.features for e in parts.streams.train])
    twice = torch.cat([images, images])  # two epochs
    assert torch.equal(sorted_sums(seen[1].x), sorted_sums(twice))
    assert seen[1].y.bincount().tolist() == [12, 12, 12]
    assert parts.strategy.replayed_images == 12
    assert parts.strategy.bytes_kept == images.nbytes + 18 * 8


def test_cumulative_begins_as_uniad_does(data, tmp_path):
    found = []
    for strategy in ("cumulative", "uniad"):
        _, parts = assembled(strategy, data, tmp_path)
        torch.manual_seed(0)
        parts.strategy.train(parts.streams.train[0], eval_streams=[])
        found.append(parts.strategy.model.state_dict())
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[1])


@pytest.mark.parametrize("strategy", ["cumulative", "separate"])
def test_upper_bounds_go_through_a_checkpoint(strategy, data, tmp_path):
    _, parts = assembled(strategy, data, tmp_path)
    parts.strategy.train(parts.streams.train[0], eval_streams=[])
    torch.save(parts.strategy.state(), tmp_path / "state.pt")
    _, other = assembled(strategy, data, tmp_path)
    other.strategy.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for each in (parts, other):
        torch.manual_seed(0)
        each.strategy.train(each.streams.train[1], eval_streams=[])
    one, two = (each.strategy.model.state_dict() for each in (parts, other))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_every_batch_of_separate_belongs_to_one_object_and_none_is_lost(data, tmp_path):
    _, parts = assembled("separate", data, tmp_path, settings=("base.batch_size=4",))
    watch = Watch()
    parts.strategy.plugins.insert(0, watch)
    parts.strategy.train(parts.streams.train[0], eval_streams=[])
    assert all(len(batch.y.unique()) == 1 for batch in watch.batches)
    every = Batch.concatenate(watch.batches)
    features = parts.streams.train[0].resident.features
    assert torch.equal(sorted_sums(every.x), sorted_sums(torch.cat([features, features])))


def test_a_network_is_trained_as_if_it_were_alone(data, tmp_path):
    """Without noise, training of an object does not depend on another in its experience."""
    schedule = ("batch_size=6", "warmup_iterations=0", "schedule=constant")
    settings = [f"{block}.{s}" for block in ("base", "increment") for s in schedule]
    settings += ["network.dropout=0", "network.jitter_scale=0"]
    together, _ = train("separate", data, tmp_path, *settings)
    alone, _ = train("separate", data, tmp_path, *settings, protocol="visa_1_1")
    for number in ("0", "1"):
        one = dict(together.strategy.model.networks[number].named_parameters())
        two = dict(alone.strategy.model.networks[number].named_parameters())
        start = dict(together.strategy._network(int(number)).named_parameters())
        assert any(not torch.allclose(one[k], start[k], atol=5e-4) for k in one)
        # A tenth of one step: Adam enlarges rounding where the gradient is zero (biases of keys).
        assert all(torch.allclose(one[k], two[k], atol=1e-4) for k in one)


def test_networks_of_old_objects_stay_as_they_are(data, tmp_path):
    _, parts = assembled("separate", data, tmp_path)
    learner = parts.strategy
    learner.train(parts.streams.train[0], eval_streams=[])
    before = {k: v.clone() for k, v in learner.model.state_dict().items()}
    learner.train(parts.streams.train[1], eval_streams=[])
    after = learner.model.state_dict()
    assert list(learner.model.networks) == ["0", "1", "2"]
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_each_test_image_is_judged_by_the_network_of_its_object(data, tmp_path):
    parts, _ = train("separate", data, tmp_path)
    model = parts.strategy.model.eval()
    features = parts.streams.test[0].resident.batch(torch.arange(4)).x
    objects = torch.tensor([0, 2, 1, 7])  # 7 was never learnt: the newest network judges it
    with torch.no_grad():
        found = model(features, objects)
        for row, number in enumerate((0, 2, 1, 2)):
            own = model.networks[str(number)](features[row : row + 1])
            torch.testing.assert_close(found.distance()[row : row + 1], own.distance())


def test_frozen_begins_as_fine_tuning_and_never_moves(data, tmp_path):
    """Its base stage equals fine-tuning's, bit for bit; afterwards no image is trained on and no score
    changes.
    """
    frozen = tiny_run("frozen", data, tmp_path, eval_unseen=True)
    finetune = tiny_run("finetune", data, tmp_path, eval_unseen=True)
    for level in ("image", "pixel"):
        values = frozen.matrix(level).values
        assert np.array_equal(values[0], finetune.matrix(level).values[0])
        assert np.array_equal(values[0], values[1])
    scores = frozen.scores().pivot(index="image", columns="experience", values="score")
    assert (scores[0] == scores[1]).all()
    assert (
        not finetune.scores()
        .pivot(index="image", columns="experience", values="score")
        .eval("`0` == `1`")
        .all()
    )
    assert frozen.info["costs"]["trained_images"] == [24, 0]
    assert set(frozen.train_log()["experience"]) == {0}
    assert frozen.info["strategy"]["family"] == "bounds"
