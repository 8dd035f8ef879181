"""A protocol as an Avalanche benchmark for a user's own program: nothing is sealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario, EagerCLStream

from iufbench.data.resident import UNKNOWN_OBJECT, ResidentData
from iufbench.evaluation.truth import ObjectTest
from iufbench.streams.streams import Loaded, avalanche_dataset


class AnomalyExperience(DatasetExperience):
    """Training: the normal images of the objects that arrive together; test: all test images of one object.

    Attributes:
        resident: the inputs as tensors.
        classes_in_this_experience: object ids, numbered as they arrive; none where they are hidden.
        task_labels: always ``[0]``.
        truth: of a test experience, the object's name and the labels, masks and names of its images.
    """

    def __init__(self, data: ResidentData, number: int, truth: ObjectTest | None = None) -> None:
        super().__init__(dataset=avalanche_dataset(data), current_experience=number)
        self.resident = data
        known = set(data.objects.tolist()) - {UNKNOWN_OBJECT}
        self.classes_in_this_experience: list[int] = sorted(known)
        self.task_labels = [0]
        self.truth = truth


class AnomalyBenchmark(CLScenario):
    """``train_stream`` has an experience for every step of a protocol, ``test_stream`` one for every object.

    ``objects``: their names by id.
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
        """Take over the images as learners see them, for those that look at pixels."""
        for stream, parts in ((self.train_stream, loaded.train), (self.test_stream, loaded.test)):
            for experience, data in zip(stream, parts):
                experience.resident.guide = data.guide
