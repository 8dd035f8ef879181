"""A strategy receives the training images of its experience, and nothing else is reachable from them."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest
from click.testing import CliRunner
from reach import Treasure
from tiny import SETTINGS, assembled, tiny_plan, tiny_run

from iufbench.cards.datasets import dataset_cards
from iufbench.cards.protocols import resolve_protocol
from iufbench.cards.registry import card_paths
from iufbench.cli.main import main
from iufbench.data.resident import UNKNOWN_OBJECT
from iufbench.data.samples import DataSet, Sample
from iufbench.engine import runner
from iufbench.reporting.store import find_runs
from iufbench.streams import streams
from iufbench.support.progress import Progress

QUICK = ("cumulative", "finetune", "iuf", "joint", "patchcore", "replay")
SLOW = sorted(set(card_paths("strategy")) - set(QUICK))


def forbidden(plan, parts, experience, tested=None) -> Treasure:
    """Everything that must not be reachable in the training of ``experience`` or the evaluation of
    ``tested``.
    """
    treasure = Treasure()
    for number, (handed, test) in enumerate(zip(parts.streams.test, parts.evaluation.tests)):
        treasure.object(test, "the truth about a test object")
        for word in test.names:
            treasure.words[word] = "the name of a test image"
        treasure.array(test.labels, "test labels")
        treasure.array(test.masks.bits, "test masks")
        masks = test.masks.unpacked()
        treasure.content[next(m for m in masks if m.any()).tobytes()] = "a copy of a test mask"
        if number != tested:
            treasure.object(handed, "a test experience")
            treasure.features(handed.resident.features, f"test images of object {number}")
    for number, handed in enumerate(parts.streams.train):
        later = number > experience
        if later or (number < experience and not plan.learner.uses.stored_images):
            what = f"training images of {'later' if later else 'earlier'} experience {number}"
            treasure.object(handed, what)
            treasure.features(handed.resident.features, what)
    for name in plan.protocol.objects[sum(map(len, plan.experiences[: experience + 1])) :]:
        treasure.words[name] = "the name of a later object"
    treasure.words[str(plan.path)] = "the run directory"
    treasure.object(plan, "the plan")
    treasure.object(plan.dataset, "the data set")
    treasure.object(parts, "everything")
    return treasure


class LookAround:
    """A plugin that searches everything reachable from the strategy."""

    def __init__(self, plan, parts):
        self.plan, self.parts, self.experience = plan, parts, -1
        self.found, self.looks, self.treasures = {}, 0, {}

    def look(self, strategy, moment, tested=None):
        self.looks += 1
        place = self.experience, tested
        if place not in self.treasures:
            self.treasures[place] = forbidden(self.plan, self.parts, *place)
        treasure = self.treasures[place]
        if found := treasure.found([strategy], [self, vars(self)]):
            self.found[moment] = found

    def before_training(self, strategy, **kwargs):
        self.experience += 1
        self.look(strategy, "before training")

    def before_training_exp(self, strategy, **kwargs):
        self.look(strategy, "before an experience")

    def after_training_epoch(self, strategy, **kwargs):
        self.look(strategy, "after an epoch")

    def after_training_exp(self, strategy, **kwargs):
        self.look(strategy, "after an experience")

    def before_eval(self, strategy, **kwargs):
        self.look(strategy, "before evaluation", self.tested(strategy))

    def after_eval_iteration(self, strategy, **kwargs):
        self.look(strategy, "in evaluation", self.tested(strategy))

    def tested(self, strategy):
        return next(i for i, e in enumerate(self.parts.streams.test) if e is strategy.current_eval_stream[0])


@pytest.mark.parametrize("strategy", [*QUICK, *(pytest.param(s, marks=pytest.mark.slow) for s in SLOW)])
def test_nothing_but_the_experience_can_be_reached(strategy, data, tmp_path, monkeypatch):
    plan = tiny_plan(strategy, data, tmp_path, ("base.epochs=1", "increment.epochs=1"))
    original, lookers = runner.assemble, []

    def watched(*arguments):
        parts = original(*arguments)
        lookers.append(LookAround(plan, parts))
        parts.strategy.plugins.append(lookers[0])
        return parts

    monkeypatch.setattr(runner, "assemble", watched)
    runner.execute(plan, Progress(-1))
    (looker,) = lookers
    assert looker.looks >= 4
    assert looker.found == {}


def test_nothing_lies_about_in_the_harness(data, tmp_path):
    """No global of a module leads to images or ground truth, so no cache can be imported by a strategy."""
    plan, parts = assembled("finetune", data, tmp_path)
    treasure = forbidden(plan, parts, -1)
    roots = [vars(module) for name, module in sys.modules.items() if name.split(".")[0] == "iufbench"]
    treasure.words = {w: what for w, what in treasure.words.items() if "/" in w}  # objects are named on cards
    assert treasure.found(roots) == []


HIDDEN = {
    "label": lambda s, parts: setattr(s, "kept", {"a": [(parts.evaluation.tests[0].labels,)]}),
    "view of masks": lambda s, parts: setattr(s, "kept", parts.evaluation.tests[0].masks.bits[2:3]),
    "truth in a closure": lambda s, parts: setattr(s.model, "kept", lambda: parts.evaluation.tests[1]),
    "later images": lambda s, parts: setattr(
        s.plugins[0], "kept", parts.streams.train[1].resident.features[1:]
    ),
    "copied test images": lambda s, parts: setattr(
        s, "kept", parts.streams.test[0].resident.features.clone()
    ),
    "name of a test image": lambda s, parts: setattr(
        s.evaluator, "kept", "x " + parts.evaluation.tests[0].names[0]
    ),
    "a generator": lambda s, parts: setattr(s, "kept", (x for x in [parts.streams.test])),
    "patches of a test image": lambda s, parts: setattr(
        s.model,
        "kept",
        parts.streams.test[0].resident.features.float().permute(0, 2, 3, 1).flatten(0, 2).clone(),
    ),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_the_search_finds_what_is_hidden(kind, data, tmp_path):
    plan, parts = assembled("finetune", data, tmp_path)
    treasure = forbidden(plan, parts, 0)
    assert treasure.found([parts.strategy]) == []
    HIDDEN[kind](parts.strategy, parts)
    assert treasure.found([parts.strategy])


HOSTILE = """
    import torch
    from iufbench.learning.base import ReconstructionStrategy

    class Hostile(ReconstructionStrategy):
        carried = ("memory",)

        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.memory = {}

        def _before_training_exp(self, **kwargs):
            super()._before_training_exp(**kwargs)
            BEFORE_TRAINING

        def anomaly_maps(self):
            assert self.experience.current_experience == 0, "the number tells the object"
            IN_EVALUATION
            return super().anomaly_maps()
"""


def hostile(data, tmp_path, before_training="pass", in_evaluation="pass"):
    """A run of a user-defined strategy with these methods, through the command line."""
    code = textwrap.dedent(HOSTILE)
    code = code.replace("BEFORE_TRAINING", before_training).replace("IN_EVALUATION", in_evaluation)
    name = f"hostile_{abs(hash(code))}"  # a module is imported once
    (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "mine.yaml").write_text(f"extends: uniad\ntitle: Mine\nlearner: {name}:Hostile\n")
    settings = [part for s in SETTINGS for part in ("--set", s)]
    arguments = ["run", "--protocol", "visa_2_1", "--strategy", tmp_path / "mine.yaml", "--data-root", data,
                 "--results", tmp_path / "r", "--device", "cpu", "-q", *settings]  # fmt: skip
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize(
    "peek",
    [
        "self.experience.origin_stream.benchmark",
        "list(self.experience.origin_stream)",
        "self.experience.origin_stream[1]",
        "len(self.experience.origin_stream)",
        "[e for e in self.experience.origin_stream.benchmark.streams['test']]",
    ],
)
@pytest.mark.parametrize("moment", ["before_training", "in_evaluation"])
def test_looking_further_is_one_clear_line(peek, moment, data, tmp_path):
    done = hostile(data, tmp_path, **{moment: peek})
    assert done.exit_code == 1 and done.stderr.count("\n") == 1, done.output
    assert done.stderr.startswith("error: a strategy may not")
    (found,), _ = find_runs(tmp_path / "r", include_incomplete=True)
    assert found.info["status"] == "failed" and "PeekingError" in found.info["error"]


@pytest.mark.parametrize(
    ("learn", "part"),
    [
        ("self.memory['x'] = self.mbatch.x", "memory.memory"),
        ("next(self.model.parameters()).data.add_(1e-3)", "network."),
        ("self.model.feature_mean.add_(self.mbatch.x.mean())", "network.feature_mean"),
    ],
)
def test_learning_from_test_images_ends_the_run(learn, part, data, tmp_path):
    done = hostile(data, tmp_path, in_evaluation=learn)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert f"the strategy's state changed during evaluation: {part}" in done.stderr


def test_scores_are_no_feedback(data, tmp_path):
    _, parts = assembled("finetune", data, tmp_path)
    parts.strategy.train(parts.streams.train[0], eval_streams=[])
    runner.evaluate_objects(parts, 0, 2, range(2), Progress(-1), "")
    evaluator = parts.strategy.evaluator
    assert len(parts.evaluation.result().metrics) > 0
    assert evaluator.get_last_metrics() == {} == dict(evaluator.get_all_metrics())


def test_hidden_objects_are_hidden(data, tmp_path):
    _, parts = assembled("finetune", data, tmp_path)
    for test in parts.streams.test:
        assert test.current_experience == 0
        assert set(test.resident.objects.tolist()) == {UNKNOWN_OBJECT}


def test_good_and_defective_do_not_lie_together(tmp_path):
    """In file order all defective images come first; the order of the stream is uninformative."""
    names = dataset_cards()["visa"].objects
    protocol = resolve_protocol("visa_11_1", names)
    rng = np.random.default_rng(0)
    samples = tuple(
        Sample(tmp_path / f"{n}{k:03d}", n, "test", int(k < 100)) for n in names for k in range(200)
    )
    for sample in samples:
        sample.image.write_bytes(rng.bytes(64))
    groups = streams.test_samples(DataSet("visa", tmp_path, names, samples), protocol)
    for name, group in zip(names, groups):
        assert {s.image for s in group} == {s.image for s in samples if s.object == name}
        labels = np.array([s.label for s in group])
        assert 70 < (labels[1:] != labels[:-1]).sum() < 130 and 30 < labels[:100].sum() < 70
    again = streams.test_samples(DataSet("visa", tmp_path, names, tuple(reversed(samples))), protocol)
    assert again == groups  # the order of the file list plays no part


INVERTING = """
    import hashlib
    import torch
    from iufbench.learning.base import ReconstructionStrategy

    class Inverting(ReconstructionStrategy):
        def _before_eval_exp(self, **kwargs):
            super()._before_eval_exp(**kwargs)
            self.done = 0

        def anomaly_maps(self):
            count = len(self.experience.resident)
            seed = int.from_bytes(hashlib.sha256(b"0:test order:candle").digest()[:4], "big")
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
            places = order[self.done : self.done + len(self.mbatch.x)].float()
            self.done += len(places)
            return places[:, None, None].expand(-1, 224, 224)
"""


def test_inverting_a_permutation_of_the_test_images_gains_nothing(tmp_path):
    """Each image is scored by the position of its file under a permutation that earlier versions used."""
    from iufbench.data.synthetic import make

    root = tmp_path / "visa"
    make(
        root, objects=["candle", "capsules"], n_train=4, n_good=20, n_defective=20, workers=1, progress=False
    )
    (tmp_path / "inverting.py").write_text(textwrap.dedent(INVERTING))
    card = tmp_path / "inverting.yaml"
    card.write_text("extends: uniad\nlearner: inverting:Inverting\n")
    run = tiny_run(str(card), root, tmp_path / "results", protocol="visa_1_1")
    assert 0.3 < run.matrix("image").values[0, 0] < 0.7  # was 0.0 or 1.0


def test_metrics_that_avalanche_keeps_survive_an_evaluation(data, tmp_path):
    """Only the state for the next experience is checked; plugins may change their own."""
    _, parts = assembled("finetune", data, tmp_path)

    class Counter:
        batches = 0

        def after_eval_iteration(self, strategy, **kwargs):
            self.batches += 1

    parts.strategy.plugins.append(counter := Counter())
    runner.evaluate_objects(parts, 0, 0, range(2), Progress(-1), "")
    assert counter.batches > 0 and parts.strategy.mbatch is None
