"""Protocols as Avalanche streams: the published objects and counts, sealed."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from iufbench.cards.datasets import dataset_cards
from iufbench.cards.protocols import protocol_cards, resolve_protocol
from iufbench.data.cache.guides import shrink
from iufbench.data.datasets import open_dataset
from iufbench.data.resident import UNKNOWN_OBJECT, Batch, Batches, ResidentData
from iufbench.streams import streams

FACTS = Path(__file__).parent / "data" / "facts"
PUBLISHED = json.loads((FACTS / "protocols.json").read_text())["protocols"]


class Blank:
    """Replaces FrozenInputs where only names, ids and counts matter: no image is opened."""

    from_files = False

    def load(self, samples, objects, advance=None) -> ResidentData:
        n = len(samples)
        guide = torch.zeros(n, 3, 2, 2, dtype=torch.uint8)
        return ResidentData(torch.zeros(n, 1, 1, 1), torch.tensor(objects, dtype=torch.int64), guide)


@pytest.fixture(scope="module")
def published(mvtec_tree, visa_tree):
    return {"mvtec": mvtec_tree, "visa": visa_tree}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_stream_has_the_published_objects_and_counts(name, published):
    facts = PUBLISHED[name]
    card = protocol_cards()[name]
    data = open_dataset(card.dataset, card.objects, published[card.dataset])
    built = streams.build_streams(data, card, Blank())

    assert [list(e) for e in card.experiences] == facts["experiences"]
    counts = dataset_cards()[card.dataset].counts
    expected = [sum(counts[o]["train"] for o in group) for group in card.experiences]
    assert [len(e.dataset) for e in built.train] == expected
    if card.dataset == "mvtec":  # VisA's published lists are One-for-More's subset of 200 images
        assert expected == facts["train_images_one_for_more"]
    seen = [sum(len(e) for e in card.experiences[: t + 1]) for t in range(len(card.experiences))]
    tests = [sum(len(e.dataset) for e in built.test[:n]) for n in seen]
    assert tests == facts["test_images_one_for_more"]
    for t, (experience, names) in enumerate(zip(built.train, card.experiences)):
        ids = {card.objects.index(o) for o in names}
        assert set(experience.resident.objects.tolist()) == ids
        assert set(experience.dataset.targets) == ids
        assert experience.current_experience == t


@pytest.fixture
def built(visa_tree):
    protocol = resolve_protocol("visa_2_1", dataset_cards()["visa"].objects)
    data = open_dataset("visa", protocol.objects, visa_tree)
    return streams.build_streams(data, protocol, Blank())


def test_training_sees_normal_images_only(built):
    data = open_dataset("visa", ("candle",), built.tests[0][0].image.parents[4])
    protocol = resolve_protocol("visa_1_1", ("candle", "capsules"))
    assert all(s.label == 0 and s.split == "train" for s in streams.train_samples(data, protocol)[0])


def test_joint_puts_all_objects_into_one_experience(visa_tree):
    protocol = resolve_protocol("visa_2_1", dataset_cards()["visa"].objects)
    data = open_dataset("visa", protocol.objects, visa_tree)
    (only,) = streams.train_samples(data, protocol, joint=True)
    assert {s.object for s in only} == set(protocol.objects)


@pytest.mark.parametrize(
    "peek",
    [
        lambda e: e.origin_stream.benchmark,
        lambda e: e.origin_stream.benchmark.test_stream,
        lambda e: list(e.origin_stream),
        lambda e: e.origin_stream[1],
    ],
)
def test_from_one_experience_no_other_can_be_reached(built, peek):
    for experience in (*built.train, *built.test):
        with pytest.raises(streams.PeekingError):
            peek(experience)


def test_what_a_strategy_is_handed_has_no_labels_masks_or_paths(built):
    resident = built.test[0].resident
    assert set(vars(resident)) == {"features", "objects", "guide", "vectors", "ahead"}
    assert not hasattr(built.test[0], "samples")


def test_object_ids_at_test_are_for_those_who_declare_them(visa_tree):
    protocol = resolve_protocol("visa_2_1", dataset_cards()["visa"].objects)
    data = open_dataset("visa", protocol.objects, visa_tree)
    for declared in (False, True):
        inputs = Blank()
        built = streams.build_streams(data, protocol, inputs, object_id_at_test=declared)
        for number, experience in enumerate(built.test):
            shown = {number} if declared else {UNKNOWN_OBJECT}
            assert set(experience.resident.objects.tolist()) == set(experience.dataset.targets) == shown
            assert {y for batch in Batches(experience.resident, 64) for y in batch.y.tolist()} == shown
        assert set(built.train[1].resident.objects.tolist()) == {2}


def test_avalanche_may_copy_a_sealed_experience(built):
    assert copy.copy(built.train[0]).origin_stream.name == "train"


def test_batches_cover_everything_once_and_follow_the_generator():
    data = ResidentData(torch.arange(10.0).view(10, 1, 1, 1), torch.arange(10), None)

    def epochs(seed: int) -> list[list[int]]:
        loader = Batches(data, 4, torch.Generator().manual_seed(seed))
        return [torch.cat([b.y for b in loader]).tolist() for _ in range(2)]

    first, second = epochs(0)
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert epochs(0) == [first, second] != epochs(1)
    assert [len(b.x) for b in Batches(data, 4)] == [4, 4, 2]
    assert len(Batches(data, 4)) == 3


def test_a_batch_reads_as_the_triple_that_plugins_expect():
    batch = Batch(torch.zeros(2, 1, 1, 1), torch.tensor([3, 4]), torch.zeros(2, dtype=torch.int64))
    x, y, task = batch
    assert len(batch) == 2 and batch[1] is y is batch.y and batch[-1] is task and batch[0] is x
    assert batch.to("cpu").guide is None
    both = Batch.concatenate([batch, batch])
    assert both.y.tolist() == [3, 4, 3, 4]


def test_shrink_takes_area_means():
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    image[:, :, :2, :2] = 100
    assert shrink(image, 2)[0, 0].tolist() == [[100, 0], [0, 0]]
    assert shrink(image, 4).equal(image)
