"""A protocol on a data set as Avalanche streams.

The train stream has one experience per step with the normal images of the objects it introduces; the
test stream has one experience per object. Every experience is sealed: from the one that a strategy is
handed, no other can be reached. Test experiences are benchmarks of their own, so that none has a number
that tells the object, and their images are sorted by a hash of their bytes, because in the order of their
files the good ones lie together; they carry object ids only for a strategy that declares to use them.

This holds against everything that a strategy is handed, not against one that breaks in: Python cannot
keep code of the same process from the garbage collector, the call stack, or the disk.
"""

from __future__ import annotations

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
    """A strategy tried to reach data beyond the experience that it was handed."""


class SealedStream:
    """Stands in for ``experience.origin_stream``: has a name for the loggers, and refuses the rest."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise PeekingError(
            f"a strategy may not look beyond its experience (asked for '{attribute}' of the "
            f"{self.name} stream)"
        )

    def __iter__(self) -> Any:
        raise PeekingError(f"a strategy may not walk through the {self.name} stream")

    def __len__(self) -> int:
        raise PeekingError(f"a strategy may not count the {self.name} stream")

    def __getitem__(self, index: int) -> Any:
        raise PeekingError(f"a strategy may not pick from the {self.name} stream")


@dataclass(frozen=True)
class Streams:
    """``train[t]`` and ``test[o]`` are Avalanche experiences, ``tests[o]`` the samples behind ``test[o]``
    (labels and masks: for the evaluation, never for a strategy)."""

    train: list[DatasetExperience]
    test: list[DatasetExperience]
    tests: list[list[Sample]]


def test_samples(dataset: DataSet, protocol: Protocol, from_files: bool = True) -> list[list[Sample]]:
    """The test images of every object, in the order in which the protocol introduces them.

    Those of one object are sorted by a hash of their bytes: a position tells nothing about a label, and there
    is no permutation that a strategy could derive and invert. Raises InputError naming an image that cannot
    be read. Without ``from_files`` (random inputs, which have no bytes) they keep their order.
    """
    groups = [dataset.select("test", (o,)) for o in protocol.objects]
    return [sorted(group, key=_content_hash) if from_files else list(group) for group in groups]


def _content_hash(sample: Sample) -> bytes:
    """A hash of the end of an image file: compressed pixels, which no other image has."""
    try:
        with sample.image.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - HASHED_BYTES))
            return hashlib.blake2b(stream.read(), digest_size=16).digest()
    except OSError as error:
        raise InputError(f"{sample.image}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Loaded:
    """The inputs of all experiences, ``train[t]`` and ``test[o]``; ``tests[o]``: the samples of that."""

    train: list[ResidentData]
    test: list[ResidentData]
    tests: list[list[Sample]]


def load_streams(
    dataset: DataSet,
    protocol: Protocol,
    inputs: Inputs,
    joint: bool = False,
    advance: Any = None,
    object_id_at_test: bool = False,
    seed: int = 0,
) -> Loaded:
    """Decode and encode everything once.

    Without ``object_id_at_test`` every object id of the test stream is ``UNKNOWN_OBJECT``. ``seed`` is the
    run's: some streams draw by it which images come first.
    Raises InputError naming the file when an image is unreadable.
    """
    products = {name: number for number, name in enumerate(protocol.products)}
    ids = {name: products[protocol.product_of(name)] for name in protocol.objects}

    def resident(samples: Sequence[Sample]) -> ResidentData:
        return inputs.load(samples, [ids[s.object] for s in samples], advance)

    train = [resident(group) for group in train_samples(dataset, protocol, joint, seed)]
    tests = test_samples(dataset, protocol, inputs.from_files)
    test = [resident(group) for group in tests]
    if not object_id_at_test:
        test = [data.without_objects() for data in test]
    return Loaded(train, test, tests)


def build_streams(
    dataset: DataSet,
    protocol: Protocol,
    inputs: Inputs,
    joint: bool = False,
    advance: Any = None,
    object_id_at_test: bool = False,
    seed: int = 0,
) -> Streams:
    """What ``load_streams`` gives, as sealed Avalanche experiences."""
    loaded = load_streams(dataset, protocol, inputs, joint, advance, object_id_at_test, seed)
    test = [_stream("test", [data])[0] for data in loaded.test]
    return Streams(_stream("train", loaded.train), test, loaded.tests)


def _stream(name: str, parts: Sequence[ResidentData]) -> list[DatasetExperience]:
    benchmark = benchmark_from_datasets(**{name: [avalanche_dataset(p) for p in parts]})
    experiences = list(benchmark.streams[name])
    for experience, data in zip(experiences, parts):
        experience._origin_stream = SealedStream(name)
        # Batches are index-selects from these tensors; Avalanche's dataset hands out single samples.
        experience.resident = data
    return experiences


def avalanche_dataset(data: ResidentData) -> AvalancheDataset:
    """Inputs as Avalanche knows data: ``targets`` are object ids, and every task label is 0."""
    zeros = torch.zeros_like(data.objects)
    attributes = [
        DataAttribute(data.objects.tolist(), "targets", use_in_getitem=False),
        DataAttribute(zeros.tolist(), "targets_task_labels", use_in_getitem=True),
    ]
    return AvalancheDataset([data], data_attributes=attributes)
