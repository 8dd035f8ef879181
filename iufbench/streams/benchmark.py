"""A protocol as an unsealed Avalanche benchmark, for use in the user's own programs."""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

from collections.abc import Sequence
from typing import Any

from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario, EagerCLStream

from iufbench.data.resident import UNKNOWN_OBJECT, ResidentData
from iufbench.evaluation.truth import ObjectTest
from iufbench.streams.streams import Loaded, avalanche_dataset


class AnomalyExperience(DatasetExperience):
    """A training experience (images of the objects introduced together) or a test experience (one object).

    Attributes:
        resident: The inputs as tensors.
        classes_in_this_experience: Object ids in order of introduction; empty where they are hidden.
        task_labels: Always ``[0]``.
        truth: The ground truth of a test experience (object, labels, masks, image names); None in training.
    """

    def __init__(self, data: ResidentData, number: int, truth: ObjectTest | None = None) -> None:
        super().__init__(dataset=avalanche_dataset(data), current_experience=number)
        self.resident = data
        known = set(data.objects.tolist()) - {UNKNOWN_OBJECT}
        self.classes_in_this_experience: list[int] = sorted(known)
        self.task_labels = [0]
        self.truth = truth


class AnomalyBenchmark(CLScenario):
    """An Avalanche scenario: one training experience per protocol step, one test experience per object.

    Attributes:
        train_stream: The training experiences, in the order of the protocol.
        test_stream: The test experiences, in the order in which the objects are introduced.
        objects: The names of the objects, indexed by object id.
    """

    train_stream: Any
    test_stream: Any

    def __init__(self, loaded: Loaded, truths: Sequence[ObjectTest]) -> None:
        train = [AnomalyExperience(data, t) for t, data in enumerate(loaded.train)]
        test = [AnomalyExperience(d, o, truth) for o, (d, truth) in enumerate(zip(loaded.test, truths))]
        super().__init__([EagerCLStream("train", train), EagerCLStream("test", test)])
        for stream in self.streams.values():
            stream.benchmark = self
        self.objects = tuple(truth.object for truth in truths)

    def use_guides(self, loaded: Loaded) -> None:
        """Attach the guide images of ``loaded`` to the experiences, for strategies that use pixels."""
        for stream, parts in ((self.train_stream, loaded.train), (self.test_stream, loaded.test)):
            for experience, data in zip(stream, parts):
                experience.resident.guide = data.guide
