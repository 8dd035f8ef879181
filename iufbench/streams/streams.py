"""Sealed Avalanche streams of a protocol on a data set.

The train stream has one experience per step, with the normal images of the objects it introduces; the
test stream has one experience per object. Every experience is sealed: no other experience can be reached
from it. Each test experience is a separate benchmark, so that its number does not reveal the object, and
its images are sorted by a hash of their bytes, because file order groups the good images together. Test
experiences carry object ids only for strategies that declare that they use them.

Sealing covers everything that is passed to a strategy. It is not a sandbox: Python cannot prevent code in the
same process from using the garbage collector, the call stack, or the disk.
"""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience, benchmark_from_datasets
from avalanche.benchmarks.utils.data import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute

from iufbench.cards.protocols import Protocol
from iufbench.data.resident import Inputs, ResidentData
from iufbench.data.samples import DataSet, Sample
from iufbench.streams.schedule import train_samples
from iufbench.support.errors import InputError, RunError

HASHED_BYTES = 2**16


class PeekingError(RunError):
    """A strategy tried to access data outside its current experience."""


class SealedStream:
    """Replaces ``experience.origin_stream``: provides the name for loggers and denies any other access."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise PeekingError(
            f"a strategy may not access data outside its experience (attribute '{attribute}' of the "
            f"{self.name} stream)"
        )

    def __iter__(self) -> Any:
        raise PeekingError(f"a strategy may not iterate over the {self.name} stream")

    def __len__(self) -> int:
        raise PeekingError(f"a strategy may not read the length of the {self.name} stream")

    def __getitem__(self, index: int) -> Any:
        raise PeekingError(f"a strategy may not index the {self.name} stream")


@dataclass(frozen=True)
class Streams:
    """Sealed experiences and the ground truth of the test images.

    Attributes:
        train: One Avalanche experience per step.
        test: One Avalanche experience per object.
        tests: The samples of each test experience (labels and masks), for the evaluation only.
        calibration: One Avalanche experience per object, with the images its thresholds are calibrated on;
            empty in a run without thresholds.
    """

    train: list[DatasetExperience]
    test: list[DatasetExperience]
    tests: list[list[Sample]]
    calibration: list[DatasetExperience]


def test_samples(dataset: DataSet, protocol: Protocol, from_files: bool = True) -> list[list[Sample]]:
    """List the test images of every object.

    The images of one object are sorted by a hash of their bytes: a position reveals nothing about a label,
    and there is no permutation that a strategy could derive and invert.

    Args:
        dataset: The data set.
        protocol: Determines the objects and their order.
        from_files: Whether the samples are readable files; if not (random inputs), they keep their order.

    Returns:
        One list of samples per object, in the order in which the protocol introduces the objects.

    Raises:
        InputError: An image cannot be read; the message names the file.
    """
    groups = [dataset.select("test", (o,)) for o in protocol.objects]
    return [sorted(group, key=_content_hash) if from_files else list(group) for group in groups]


def _content_hash(sample: Sample) -> bytes:
    """Hash the end of an image file: compressed pixel data, which is unique to the image."""
    try:
        with sample.image.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - HASHED_BYTES))
            return hashlib.blake2b(stream.read(), digest_size=16).digest()
    except OSError as error:
        raise InputError(f"{sample.image}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Loaded:
    """The inputs of all experiences: ``train[t]`` and ``test[o]``; ``tests[o]``: samples of ``test[o]``;
    ``calibration[o]``: those that the thresholds of an object are calibrated on, empty without."""

    train: list[ResidentData]
    test: list[ResidentData]
    tests: list[list[Sample]]
    calibration: list[ResidentData]


def load_streams(
    dataset: DataSet,
    protocol: Protocol,
    inputs: Inputs,
    joint: bool = False,
    advance: Any = None,
    object_id_at_test: bool = False,
    seed: int = 0,
    first: int = 0,
) -> Loaded:
    """Decode and encode every image of a protocol once.

    Args:
        dataset: The data set.
        protocol: The objects of each experience and, optionally, the stream that modifies their images.
        inputs: Turns samples into tensors.
        joint: Merge all training experiences into one.
        advance: Called with the number of images that have been loaded, to report progress.
        object_id_at_test: Whether test images carry object ids; if not, all are ``UNKNOWN_OBJECT``.
        seed: Seed of the run; determines which images some streams present first.
        first: Experiences before this one have been trained already: their images are not loaded.

    Returns:
        The inputs of all experiences and the samples of the test experiences.

    Raises:
        InputError: An image cannot be read; the message names the file.
    """
    products = {name: number for number, name in enumerate(protocol.products)}
    ids = {name: products[protocol.product_of(name)] for name in protocol.objects}

    def resident(samples: Sequence[Sample]) -> ResidentData:
        return inputs.load(samples, [ids[s.object] for s in samples], advance)

    groups = enumerate(train_samples(dataset, protocol, joint, seed))
    train = [resident(group if number >= first else []) for number, group in groups]
    tests = test_samples(dataset, protocol, inputs.from_files)
    test = [resident(group) for group in tests]
    names = protocol.objects if dataset.calibration else ()
    calibration = [resident(dataset.calibrating(name)) for name in names]
    if not object_id_at_test:
        test = [data.without_objects() for data in test]
        calibration = [data.without_objects() for data in calibration]
    return Loaded(train, test, tests, calibration)


def build_streams(
    dataset: DataSet,
    protocol: Protocol,
    inputs: Inputs,
    joint: bool = False,
    advance: Any = None,
    object_id_at_test: bool = False,
    seed: int = 0,
    first: int = 0,
) -> Streams:
    """Load the inputs as ``load_streams`` does (same arguments) and wrap them in sealed experiences."""
    loaded = load_streams(dataset, protocol, inputs, joint, advance, object_id_at_test, seed, first)
    test, calibration = (
        [sealed_stream("test", [data])[0] for data in group] for group in (loaded.test, loaded.calibration)
    )
    return Streams(sealed_stream("train", loaded.train), test, loaded.tests, calibration)


def sealed_stream(name: str, parts: Sequence[ResidentData]) -> list[DatasetExperience]:
    """Wrap the inputs of experiences as the sealed experiences of one stream."""
    benchmark = benchmark_from_datasets(**{name: [avalanche_dataset(p) for p in parts]})
    experiences = list(benchmark.streams[name])
    for experience, data in zip(experiences, parts):
        experience._origin_stream = SealedStream(name)
        # Batches are index-selects from these tensors; Avalanche's dataset returns single samples.
        experience.resident = data
    return experiences


def avalanche_dataset(data: ResidentData) -> AvalancheDataset:
    """Wrap inputs in an ``AvalancheDataset``: ``targets`` are object ids, and every task label is 0."""
    zeros = torch.zeros_like(data.objects)
    attributes = [
        DataAttribute(data.objects.tolist(), "targets", use_in_getitem=False),
        DataAttribute(zeros.tolist(), "targets_task_labels", use_in_getitem=True),
    ]
    return AvalancheDataset([data], data_attributes=attributes)
