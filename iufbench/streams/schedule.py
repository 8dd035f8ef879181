"""Which images each experience of a protocol trains on and is tested on. Does not import torch.

A row of the result matrix is the state after an experience, a column is a set of test images:

    stream         row t                                  column
    none           after experience t's objects           an object
    few_shot       as above, with few images              an object
    contaminated   as above, with defective images        an object, without the images moved to training
    recurring      after experience t; objects recur      an object; introduced at its first visit
    growing        after t+1 portions of one object       that object
    drift          after training on level t              the object's test images at one level; later levels
                                                          are also tested before they are trained on
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from iufbench.cards.protocols import Protocol
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError


def train_samples(
    dataset: DataSet, protocol: Protocol, joint: bool = False, seed: int = 0
) -> list[list[Sample]]:
    """Select the training images of every experience.

    Args:
        dataset: The data set.
        protocol: The objects of each experience and, optionally, the stream that modifies their images.
        joint: Merge all experiences into one.
        seed: Determines which images a growing, few-shot or recurring stream presents first.

    Returns:
        One list of samples per experience; a single list with ``joint``.

    Raises:
        InputError: An object has fewer training images than the stream requires.
    """
    stream, groups = protocol.stream, protocol.experiences
    if stream is None or stream.kind in ("contaminated", "drift"):
        groups = (protocol.objects,) if joint else groups
        return [[s for o in group for s in dataset.training((o,))] for group in groups]
    shares = {o: _shares(dataset, protocol, o, seed) for o in protocol.objects}
    visits: Counter[str] = Counter()
    experiences = []
    for group in groups:
        experiences.append([s for o in group for s in shares[o][visits[o]]])
        visits.update(group)
    return [[s for group in experiences for s in group]] if joint else experiences


def _shares(dataset: DataSet, protocol: Protocol, name: str, seed: int) -> list[list[Sample]]:
    """The training images of one object, one list per visit."""
    stream = protocol.stream
    assert stream is not None
    samples = dataset.training((name,))
    visits = sum(name in group for group in protocol.experiences)
    if stream.kind == "few_shot":
        if name in protocol.experiences[0]:
            return [samples]
        sizes = [stream.images]
    elif stream.kind == "recurring":
        sizes = [len(samples) // visits + (k < len(samples) % visits) for k in range(visits)]
    else:
        sizes = [stream.base, *[stream.step] * stream.steps]
        sizes[-1] = min(sizes[-1], len(samples) - sum(sizes[:-1]))
    if min(sizes) < 1 or sum(sizes) > len(samples):
        between = f"{stream.steps - 1}x{stream.step}+" if stream.steps > 1 else ""
        needed = {"few_shot": f"{stream.images}", "growing": f"{stream.base}+{between}1"}
        raise InputError(
            f"stream '{stream.id}': {name} has {len(samples)} training images, too few for "
            + needed.get(stream.kind, f"{visits} visits")
        )
    ordered, start, result = _shuffled(samples, dataset, seed), 0, []
    for size in sizes:
        result.append(ordered[start : start + size])
        start += size
    return result


def _shuffled(samples: Sequence[Sample], dataset: DataSet, seed: int) -> list[Sample]:
    """Order samples by a hash of seed and file name, so that every strategy sees the same order."""

    def key(sample: Sample) -> bytes:
        name = sample.image.relative_to(dataset.root).as_posix()
        return hashlib.sha256(f"stream {seed}: {name}".encode("utf-8", "surrogateescape")).digest()

    return sorted(samples, key=key)
