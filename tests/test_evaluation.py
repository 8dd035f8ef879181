"""Results of an evaluation depend neither on batch boundaries of the maps nor on their device."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import assembled

from iufbench.data.masks import PackedMasks
from iufbench.engine import evaluate
from iufbench.engine.runner import evaluate_objects
from iufbench.evaluation import anomaly as evaluation
from iufbench.evaluation import on_device, values
from iufbench.evaluation.objects import ObjectEvaluation, ObjectTest
from iufbench.support.errors import RunError
from iufbench.support.progress import Progress

COUNT, SIZE = 35, 32
BATCHES = (1, 3, 32)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]


def truth():
    """35 images, every second one with defects: more than one batch of 32, and no multiple of 3."""
    masks = np.random.default_rng(0).random((COUNT, SIZE, SIZE)) < 0.05
    masks[::2] = False
    return ObjectTest(
        "bolt", masks.any(axis=(1, 2)), PackedMasks.of(masks), [f"{k:02d}.png" for k in range(COUNT)]
    )


def made_maps(dtype=torch.float32):
    """Maps with many ties, somewhat higher in defects."""
    rng = np.random.default_rng(1)
    values = rng.integers(0, 50, (COUNT, SIZE, SIZE)) / 7 + 2 * truth().masks.unpacked()
    return torch.from_numpy(values).to(dtype)


def judged(batches, score="pooled_max"):
    """The rows for maps that a strategy returns in parts."""
    found = ObjectEvaluation([truth()], score)
    found.start(0, 1)
    found.maps.before_eval_exp(None)
    for batch in batches:
        found.maps.after_eval_iteration(SimpleNamespace(anomaly_maps=lambda batch=batch: batch))
    found.judge(0)
    return found.result()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neither_batches_nor_devices_change_a_bit(dtype, size, device):
    maps = made_maps(dtype)
    expected = judged([maps])
    assert all(0.5 < row.value < 1 for row in expected.metrics if row.metric == "auroc")
    assert judged(maps.to(device).split(size)) == expected


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("score", ["pooled_max", "max", "top1pct"])
def test_what_is_computed_where_the_maps_are_has_the_same_bits(size, score, monkeypatch):
    """The code for a GPU, on tensors of the CPU: scores, counts, and what follows from them."""
    maps = made_maps() + torch.rand(COUNT, SIZE, SIZE, generator=torch.Generator().manual_seed(2)).round(
        decimals=3
    )
    expected = judged([maps], score)
    counted = []
    original = on_device.pixel_curve
    monkeypatch.setattr(on_device, "stays", lambda maps: isinstance(maps, torch.Tensor))
    monkeypatch.setattr(on_device, "pixel_curve", lambda *a, **k: counted.append(1) or original(*a, **k))
    assert judged(maps.split(size), score) == expected and counted
    monkeypatch.setattr(on_device, "fits", lambda pixels, device: False)
    assert judged(maps.split(size), score) == expected and len(counted) == 1


def test_maps_in_memory_that_a_strategy_uses_again(monkeypatch):
    monkeypatch.setattr(on_device, "stays", lambda maps: isinstance(maps, torch.Tensor))
    maps, buffer = made_maps(), torch.empty(7, SIZE, SIZE)
    assert judged(buffer.copy_(part) for part in maps.split(7)) == judged([maps])


def test_counts_of_normals_without_a_defect(monkeypatch):
    masks, maps = np.zeros((2, SIZE, SIZE), bool), made_maps()[:2]
    curve = on_device.pixel_curve(masks, maps.numpy(), maps)
    assert curve.n_normals == maps.numel() and np.isnan(curve.auroc())


class Elsewhere:
    """Maps on a device that numpy cannot read: only ``.float().cpu().numpy()`` works."""

    def __init__(self, maps, calls, device="gpu", dtype="bfloat16"):
        self.maps, self.calls, self.device, self.dtype = maps, calls, device, dtype

    def float(self):
        self.calls.append("float")
        return Elsewhere(self.maps, self.calls, self.device, "float32")

    def cpu(self):
        self.calls.append("cpu")
        return Elsewhere(self.maps, self.calls, "cpu", self.dtype)

    def numpy(self):
        assert self.device == "cpu", "can't convert a device tensor to numpy"
        assert self.dtype == "float32", "numpy has no bfloat16"
        self.calls.append("numpy")
        return self.maps.float().numpy()

    def __array__(self, *_, **__):
        raise AssertionError("the maps were not brought to the host")


def test_metrics_are_given_numpy_arrays_only(monkeypatch):
    given = []

    def spied(function):
        def call(*arguments, **more):
            given.extend(arguments)
            return function(*arguments, **more)

        return call

    for module, name in (
        (evaluation, "image_score"),
        (values, "image_metrics"),
        (values, "pixel_metrics"),
    ):
        monkeypatch.setattr(module, name, spied(getattr(module, name)))
    maps, calls = made_maps(torch.bfloat16), []
    rows = judged([Elsewhere(part, calls) for part in maps.split(16)])
    assert calls == ["float", "cpu", "numpy"] * 3
    assert len(given) == 5 and {type(a) for a in given} == {np.ndarray}
    assert {a.dtype for a in given if a.ndim == 3 and a.dtype != bool} == {np.dtype("float32")}
    assert rows == judged([maps])


@pytest.fixture(scope="module")
def learned(data, tmp_path_factory):
    """The parts of a run after its first experience."""
    _, parts = assembled("iuf", data, tmp_path_factory.mktemp("learned"))
    parts.strategy.train(parts.streams.train[0], eval_streams=[])
    return parts


def test_the_batch_size_of_an_evaluation_changes_no_number(learned, monkeypatch):
    """One trained learner, its maps kept in batches of any size: same rows up to differences of the network.

    The forward pass may differ in the last bits with the batch size, so maps and scores agree closely; that
    metrics of equal maps are bit-identical is tested above.
    """
    found, kept = {}, {}
    for size in BATCHES:
        kept[size] = []
        monkeypatch.setattr(learned.evaluation, "on_maps", lambda _, maps, size=size: kept[size].append(maps))
        monkeypatch.setattr(learned.strategy, "eval_mb_size", size)
        found[size] = evaluate_objects(learned, 0, 2, range(2), Progress(-1), "")
    assert len(kept[1]) == len(kept[3]) == len(kept[32]) == 2
    for size in BATCHES[:-1]:
        for one, other in zip(found[size].scores, found[32].scores):
            assert (one.object, one.image, one.label) == (other.object, other.image, other.label)
            assert one.score == pytest.approx(other.score, rel=1e-5)
        for maps, expected in zip(kept[size], kept[32]):
            np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 5), (0, 7, 7)])
def test_masks_are_kept_in_one_bit_per_pixel(shape):
    masks = np.random.default_rng(0).random(shape) < 0.3
    packed = PackedMasks.of(masks)
    assert packed.bits.nbytes == shape[0] * -(-shape[1] * shape[2] // 8)
    assert np.array_equal(packed.unpacked(), masks) and packed.unpacked().dtype == bool


def test_metrics_beside_the_next_object_have_the_same_bits(learned, monkeypatch):
    """As on a GPU whose free memory the maps exceed: the metrics of every object in a thread."""
    expected = evaluate_objects(learned, 0, 2, range(2), Progress(-1), "")
    threads, original, before = set(), values.pixel_metrics, threading.active_count()

    def watched(*arguments, **more):
        threads.add(threading.current_thread())
        return original(*arguments, **more)

    monkeypatch.setattr(evaluate, "overlaps", lambda strategy: True)
    monkeypatch.setattr(values, "pixel_metrics", watched)
    assert evaluate_objects(learned, 0, 2, range(2), Progress(-1), "") == expected
    assert threads and threading.main_thread() not in threads and threading.active_count() == before


def test_the_first_object_with_an_error_ends_an_evaluation_beside_the_next_one():
    """The second one, already computed, would fail with another error."""
    found = ObjectEvaluation([replace(truth(), object=name) for name in ("bolt", "nut")])
    found.start(0, 1)
    with pytest.raises(RunError, match="bolt"), found.one_behind():
        for number, bad in enumerate((np.nan, np.inf)):
            found.maps.before_eval_exp(None)
            found.maps.after_eval_iteration(SimpleNamespace(anomaly_maps=lambda bad=bad: made_maps() + bad))
            found.judge(number)
    assert found.result().metrics == []


def test_metrics_beside_the_next_object_keep_the_maps_of_two_objects():
    tests = [replace(truth(), object=f"bolt{number}") for number in range(4)]
    collected, evaluated = [threading.Event() for _ in tests], []
    found = ObjectEvaluation(tests)

    def on_maps(test, maps):
        evaluated.append(weakref.ref(maps))
        following = tests.index(test) + 1
        assert following == len(tests) or collected[following].wait(10), "the next object has to wait"

    found.on_maps = on_maps
    found.start(0, 1)
    with found.one_behind():
        for number in range(len(tests)):
            found.maps.before_eval_exp(None)
            for part in made_maps().split(16):
                found.maps.after_eval_iteration(SimpleNamespace(anomaly_maps=lambda part=part: part))
            assert sum(maps() is not None for maps in list(evaluated)) <= 1
            collected[number].set()
            found.judge(number)
    assert len(evaluated) == len(tests) and not any(maps() is not None for maps in evaluated)
