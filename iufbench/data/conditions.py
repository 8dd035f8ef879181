"""Data sets divided by recording condition: a drift that was recorded, not generated."""

from __future__ import annotations

from dataclasses import replace

from iufbench.cards.streams import Stream
from iufbench.data.changes import column
from iufbench.data.readers.reading import hashed_order
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError


def by_condition(dataset: DataSet, name: str, stream: Stream) -> DataSet:
    """Object ``name`` under each of ``stream.conditions``, each condition as a separate object.

    The first condition is trained on all training images. For every later one, half of the good parts of the
    test set, chosen by a hash of their names, become training images as recorded under that condition. These
    parts are not tested under any condition: the same part recorded twice would be in training and test.

    Raises InputError if the test set lacks a condition or has fewer than two good parts.
    """
    source = [s for s in dataset.samples if s.object == name]
    tested = [s for s in source if s.split == "test"]
    found = {label: {s.condition for s in tested if s.label == label} for label in (0, 1)}
    for condition in stream.conditions:
        if not all(condition in found[label] for label in (0, 1)):
            known = ", ".join(sorted(found[0] & found[1] - {""})) or "none"
            raise InputError(
                f"stream '{stream.id}': {name} has no good and defective test images under the condition "
                f"'{condition}' (has: {known})"
            )
    parts = hashed_order({_part(s) for s in tested if s.label == 0}, "condition: ")
    if len(parts) < 2:
        raise InputError(
            f"stream '{stream.id}': {name} has {len(parts)} good part in its test set; an update and a test "
            "need one each"
        )
    updates = set(parts[: len(parts) // 2])
    samples = [replace(s, object=column(name, 0)) for s in source if s.split != "test"]
    for level, condition in enumerate(stream.conditions):
        for s in tested:
            if s.condition == condition:
                moved = s.label == 0 and _part(s) in updates
                if not moved or level > 0:
                    own = column(name, level)
                    samples.append(replace(s, object=own, split="train" if moved else "test"))
    objects = tuple(column(name, k) for k in range(len(stream.conditions)))
    note = f"{len(updates)} of {len(parts)} good test parts of {name} are used for updates"
    return replace(dataset, objects=objects, samples=tuple(samples), orders={}, notes=(*dataset.notes, note))


def _part(sample: Sample) -> str:
    """The file name without its condition, which names the recorded part."""
    return sample.image.stem.removesuffix(f"_{sample.condition}")
