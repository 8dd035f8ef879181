"""Streams: their training and test images, errors in their cards, and runs to a complete matrix."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image
from tiny import tiny_run
from torchvision.transforms.v2 import functional as F

from iufbench.cards.protocols import find_protocol, resolve_protocol
from iufbench.cards.request import Request
from iufbench.cards.streams import LEVELS, find_stream, stream_cards
from iufbench.data.changes import change, contaminated, drifted
from iufbench.data.conditions import by_condition
from iufbench.data.datasets import open_dataset
from iufbench.data.requested import requested_data, requested_protocol
from iufbench.data.samples import DataSet
from iufbench.reporting.collect import collect
from iufbench.reporting.figures.build import write_run_figures
from iufbench.reporting.figures.curves import stream_figure
from iufbench.reporting.groups import group_runs
from iufbench.reporting.literature import published
from iufbench.streams.schedule import train_samples
from iufbench.support.errors import InputError
from iufbench.support.progress import Progress
from iufbench.trust.verify import verify_run

OBJECTS = ("bolt", "nut", "pin")
DRIFT = {"kind": "drift"}
SETTINGS = ("base.epochs=1", "increment.epochs=1")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    trees.mvtec(folder, OBJECTS)
    for name in OBJECTS:
        for k in range(3, 9):
            trees.put(folder / name / "train" / "good" / f"{k:03d}.png")
    return folder


@pytest.fixture(scope="module")
def dataset(root: Path) -> DataSet:
    return open_dataset("parts", None, root)


def images(dataset: DataSet, name: str, seed: int = 0, **options) -> list[list[str]]:
    protocol = resolve_protocol(name, OBJECTS, **options)
    groups = train_samples(dataset, protocol, seed=seed)
    return [[f"{s.object}/{s.image.name}" for s in group] for group in groups]


def error_of(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is trained


def test_growing_gives_every_image_once_and_the_last_portion_what_is_left(dataset):
    groups = images(dataset, "parts@bolt_4_2x3")
    assert [len(g) for g in groups] == [4, 2, 2, 1]
    assert sorted(chain.from_iterable(groups)) == [f"bolt/{k:03d}.png" for k in range(9)]
    assert groups != images(dataset, "parts@bolt_4_2x3", seed=1)
    protocol = resolve_protocol("parts@bolt_4_2x3", OBJECTS)
    assert protocol.objects == ("bolt",) and protocol.introduced == (0,) and protocol.seen(3) == 1
    assert resolve_protocol("parts@growing", OBJECTS, order=["nut"]).experiences == (("nut",),) * 5


def test_few_shot_leaves_the_base_whole(dataset):
    groups = images(dataset, "parts_1_1x2@few_shot_2")
    assert [len(g) for g in groups] == [9, 2, 2]
    smaller = images(dataset, "parts_1_1x2@few_shot_1")
    assert set(smaller[1]) < set(groups[1])  # more images are the fewer ones and others
    assert set(groups[1]) != set(images(dataset, "parts_1_1x2@few_shot_2", seed=3)[1])


def test_recurring_objects_bring_other_images(dataset):
    groups = images(dataset, "parts_1_1x2@recurring")
    assert [len(g) for g in groups] == [5, 9, 9, 4]
    assert sorted(groups[0] + groups[3]) == [f"bolt/{k:03d}.png" for k in range(9)]
    protocol = resolve_protocol("parts_1_1x2@recurring_2", OBJECTS)
    assert protocol.experiences == (("bolt",), ("nut",), ("pin",), ("bolt",), ("nut",))
    assert protocol.objects == OBJECTS and protocol.introduced == (0, 1, 2)
    assert [protocol.seen(t) for t in range(5)] == [1, 2, 3, 3, 3]


def test_joint_training_sees_what_the_stream_shows(dataset):
    protocol = resolve_protocol("parts_1_1x2@few_shot_2", OBJECTS)
    (all_at_once,) = train_samples(dataset, protocol, joint=True)
    assert len(all_at_once) == 13


def test_contaminated_images_leave_the_test_set(dataset):
    stream = find_stream("contaminated_10")
    changed = contaminated(dataset, stream)
    assert changed.counts()["bolt"] == {"train": 9, "train_defective": 1, "test_good": 2, "test_defective": 1}
    assert len(changed.training(("bolt",))) == 10 and changed.noisy_training
    moved = [s.image for s in changed.samples if s.split == "train" and s.label == 1]
    assert not {s.image for s in changed.select("test")} & set(moved)
    assert "bolt 1 of 10" in changed.notes[-1] and changed.fingerprint() != dataset.fingerprint()


def test_orders_and_streams_share_an_id():
    protocol = resolve_protocol("parts_1_1x2@few_shot_2", OBJECTS, order=["pin", "nut", "bolt"])
    assert protocol.id == "parts_1_1x2@few_shot_2+pin-nut-bolt"
    assert find_protocol("mvtec_1x15@recurring")[0] == "mvtec"


# Drift


def test_a_drift_changes_one_object_level_by_level(dataset, cache):
    stream = find_stream("drift_lighting")
    made = drifted(dataset, "bolt", stream)
    assert made.objects == tuple(f"bolt@{k}" for k in range(5))
    assert made.counts()["bolt@3"] == {"train": 9, "test_good": 2, "test_defective": 2}

    def mean(level: int) -> float:
        return float(np.mean([np.asarray(Image.open(s.image)).mean() for s in made.select("train", [level])]))

    means = [mean(name) for name in made.objects]
    original = [np.asarray(Image.open(s.image)).mean() for s in dataset.select("train", ["bolt"])]
    assert means[0] == pytest.approx(np.mean(original), abs=1e-9)
    assert means == sorted(means, reverse=True) and means[4] / means[0] == pytest.approx(0.4, abs=0.02)
    again = drifted(dataset, "bolt", stream)  # from the cache: nothing is written again
    assert again == made and made.root.is_relative_to(cache) and made.made_from == dataset.root
    assert made.fingerprint() == again.fingerprint() != dataset.fingerprint()


@pytest.mark.parametrize("name", [n for n in stream_cards() if find_stream(n).levels])
def test_every_drift_is_stronger_at_its_end_and_depends_on_nothing_but_its_seed(name):
    stream = find_stream(name)
    rng = np.random.default_rng(0)
    pixels = np.repeat(np.repeat(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), 4, 0), 4, 1)
    mask = np.zeros((64, 64), np.uint8)
    mask[24:40, 24:40] = 255

    last = len(stream.levels)

    def distance(level: int) -> float:
        image, moved = change(pixels, mask, stream, level, "seed")
        assert image.shape == pixels.shape and image.dtype == np.uint8
        if stream.transform != "geometry" or level == last:  # a pixel's fraction may move no mask
            assert (moved != mask).any() == (stream.transform == "geometry")
        return float(np.abs(image.astype(float) - pixels).mean())

    assert change(pixels, mask, stream, 0, "seed")[0] is pixels
    assert distance(last) > distance(1)
    np.testing.assert_array_equal(*(change(pixels, mask, stream, 2, "a")[0] for _ in range(2)))


def test_jpeg_and_blur_are_torchvisions():
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    import torch

    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    found = change(pixels, None, find_stream("drift_jpeg"), 4, "x")[0]
    np.testing.assert_array_equal(found, F.jpeg(image, 10).permute(1, 2, 0).numpy())
    found = change(pixels, None, find_stream("drift_blur"), 3, "x")[0]
    np.testing.assert_array_equal(found, F.gaussian_blur(image, [5, 5], [1.5, 1.5]).permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tree of MVTec AD 2 and a drift over the conditions it has."""
    folder = tmp_path_factory.mktemp("recorded")
    trees.mvtecad2(folder / "data")
    card = folder / "light.yaml"
    conditions = ["regular", "overexposed"]
    card.write_text(
        json.dumps({"id": "light", "kind": "drift", "transform": "recorded", "conditions": conditions})
    )
    return folder / "data", str(card)


def test_a_recorded_drift_tests_no_part_that_it_trains_on(recorded):
    root, card = recorded
    data = open_dataset("mvtecad2", None, root)
    made = by_condition(data, "fabric", find_stream(card))
    assert made.objects == ("fabric@0", "fabric@1")
    assert [len(made.training((name,))) for name in made.objects] == [3, 1]
    (update,) = made.training(("fabric@1",))
    assert update.condition == "overexposed" and "test_public/good" in update.image.as_posix()
    for level, light in enumerate(("regular", "overexposed")):
        tested = made.select("test", (f"fabric@{level}",))
        assert {s.condition for s in tested} == {light} and sorted(s.label for s in tested) == [0, 1, 1]
        assert update.image.stem[:3] not in {s.image.stem[:3] for s in tested if s.label == 0}
    assert made.fingerprint() != data.fingerprint() and "1 of 2 good test parts" in made.notes[-1]


def test_conditions_that_a_data_set_lacks_are_named_with_those_it_has(recorded):
    data = open_dataset("mvtecad2", None, recorded[0])
    message = error_of(lambda: by_condition(data, "can", find_stream("drift_recorded")))
    assert "can has no good and defective test images under the condition 'underexposed'" in message
    assert "(has: overexposed, regular)" in message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"transform": "recorded", "conditions": ["regular"]}, "two or more different conditions"),
        ({"transform": "recorded", "conditions": ["a", "a"]}, "two or more different conditions"),
        ({"transform": "jpeg", "levels": [[50]], "conditions": ["a", "b"]}, "belong to transform: recorded"),
    ],
)
def test_conditions_are_for_recorded_drifts(tmp_path, keys, message):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"id": "mine", "kind": "drift", **keys}))
    assert message in error_of(lambda: find_stream(str(path)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "few_shot", "levels": [[1]]}, "a few_shot stream has no key 'levels' (it has: images)"),
        ({"kind": "recurring", "parameter": "nonsense"}, "a recurring stream has no key 'nonsense'"),
        (
            {**DRIFT, "transform": "blur", "levels": [[3.5, 1]]},
            "kernel is 3.5, must be a whole number",
        ),
        (
            {**DRIFT, "transform": "jpeg", "levels": [[75.5]]},
            "quality is 75.5, must be a whole number",
        ),
        (
            {**DRIFT, "transform": "color", "levels": [[0.5, 0.1]]},
            "from is 0.5, above to: 0.1",
        ),
    ],
)
def test_cards_with_values_that_would_have_no_effect_are_refused(tmp_path, keys, message):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"id": "mine", **keys}))
    assert message in error_of(lambda: find_stream(str(path)))


# Whole runs


@pytest.mark.parametrize("strategy", ["patchcore", "uniad"])
@pytest.mark.parametrize(
    ("name", "experiences", "columns"),
    [
        ("parts@bolt_4_2x2", 3, 1),
        ("parts_1_1@few_shot_2", 2, 2),
        ("parts_1_1@recurring", 3, 2),
        ("parts_1_1@contaminated", 2, 2),
        ("parts@drift_noise", 5, 5),
    ],
)
def test_a_stream_runs_to_a_complete_matrix(root, tmp_path, name, experiences, columns, strategy):
    run = tiny_run(strategy, root, tmp_path, SETTINGS, protocol=name, preset="quick")
    matrix = run.matrix("image")
    assert matrix.values.shape == (experiences, columns) and matrix.complete
    if name.startswith("parts@drift"):
        assert not np.isnan(matrix.values).any()  # levels are tested before they are trained on, too
    assert run.record.protocol.stream["id"] == name.partition("@")[2]
    assert run.record.summary["image"]["acc"] == pytest.approx(np.nanmean(
        [np.mean(row[matrix.introduced <= t]) for t, row in enumerate(matrix.values)]
    ))  # fmt: skip
    if strategy == "patchcore":
        axes = stream_figure(group_runs([run]), published(), ["image"]).axes[0]
        assert axes.get_xlabel() == ("experiences" if experiences > columns else "objects seen")
        assert write_run_figures(run.path) and collect(tmp_path).runs[0].id == run.id
        assert verify_run(run.path, Progress(-1)).differences == []
        rows = run.scores().query(f"experience == {experiences - 1} and object == {run.objects[0]!r}")
        if not name.startswith("parts@drift"):  # levels are images of their own
            found = run.predict([root / name for name in rows["image"]], object=run.objects[0])
            assert found["score"].tolist() == pytest.approx(rows["score"].tolist(), rel=1e-5)


def test_a_recorded_drift_runs(recorded, tmp_path):
    root, card = recorded
    name = f"mvtecad2@{card}"
    run = tiny_run("patchcore", root, tmp_path, SETTINGS, protocol=name, order=("fabric",), preset="quick")
    assert run.objects == ("fabric@0", "fabric@1") and run.matrix("pixel").values.shape == (2, 2)
    assert not np.isnan(run.matrix("image").values).any()
    assert verify_run(run.path, Progress(-1)).differences == []


@pytest.mark.parametrize("name", ["kolektorsdd", "kolektorsdd2", "mtd", "vad"])
@pytest.mark.parametrize("strategy", ["patchcore", "uniad"])
def test_data_sets_of_one_object_run_as_streams_of_it(tmp_path, name, strategy):
    trees.TREES[name](tmp_path / "data")
    request = {"protocol": f"{name}@{name}_2_1x1", "preset": "quick"}
    run = tiny_run(strategy, tmp_path / "data", tmp_path / "results", SETTINGS, **request)
    assert len(run.experiences) == 2 and run.objects == (name,) and run.matrix("image").complete


# Several data sets in one stream


def mixed_card(path: Path, *experiences: list[str]) -> Path:
    path.write_text(json.dumps({"id": "my_mix", "dataset": "mixed", "experiences": list(experiences)}))
    return path


def test_objects_of_several_data_sets_in_one_stream(tmp_path):
    trees.mpdd(tmp_path / "data" / "mpdd")
    trees.btad(tmp_path / "data" / "btad")
    card = mixed_card(tmp_path / "mix.yaml", ["btad.01"], ["mpdd.bracket_black"])
    request = {"protocol": str(card), "preset": "quick"}
    run = tiny_run("patchcore", tmp_path / "data", tmp_path / "results", SETTINGS, **request)
    assert run.id.startswith("mixed/my_mix/") and run.objects == ("btad.01", "mpdd.bracket_black")
    assert run.matrix("image").complete


def test_inclad_md_is_a_card_of_27_objects():
    dataset, card = find_protocol("inclad_md")
    assert dataset == "mixed" and len(card.objects) == 27 and card.objects[0] == "btad.03"
    assert {o.partition(".")[0] for o in card.objects} == {"btad", "mpdd", "dagm", "visa", "mvtec"}


def test_a_data_set_cannot_be_mixed_with_itself(tmp_path):
    trees.mvtec3d(tmp_path / "mvtec3d")
    (tmp_path / "mvtec3d_trainval").symlink_to(tmp_path / "mvtec3d")
    card = mixed_card(tmp_path / "mix.yaml", ["mvtec3d.bagel"], ["mvtec3d_trainval.bagel"])
    request = Request(str(card), "patchcore", data_root=tmp_path)
    message = error_of(lambda: requested_data(request, requested_protocol(request)))
    assert "a data set cannot be mixed with itself" in message
    card = mixed_card(tmp_path / "mix.yaml", ["mvtec3d.bagel"], ["mvtec3d.bagel"])
    assert "an object is in several experiences" in error_of(lambda: find_protocol(str(card)))


# What is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("parts_1_1@few_shots", "unknown stream 'few_shots'; did you mean 'few_shot'?"),
        ("parts_1_1@few_shot_0", "images must be >= 1, not 0"),
        ("parts_1_1@few_shot_2.5", "images must be an integer, not 2.5"),
        ("parts_1_1@contaminated_80", "percent must be <= 50, not 80"),
        ("parts_1_1@drift_noise_3", "drift_noise has no parameter"),
        ("parts@bolt_0_2x3", "unknown stream"),
        ("parts@screw_4_2x3", "parts has no object 'screw'"),
        ("parts_1_1@recurring_2", "returns is 2, must be less than the 2 experiences of 'parts_1_1'"),
    ],
)
def test_bad_stream_names_say_what_is_allowed(name, message):
    assert message in error_of(lambda: resolve_protocol(name, OBJECTS))


@pytest.mark.parametrize("name", ["visa_2_1@drift_noise", "visa_6x2@drift_noise", "8-4@drift_noise"])
def test_a_stream_of_one_object_belongs_to_a_data_set(name):
    message = error_of(lambda: find_protocol(name))
    assert "is a protocol" in message and "one object of a data set: visa@drift_noise" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("parts@bolt_8_2x3", "bolt has 9 training images, too few for 8+2x2+1"),
        ("parts_1_1@few_shot_10", "nut has 9 training images, too few for 10"),
        ("parts_1_1@contaminated_30", "30 % of the training images of bolt are 4 defective ones; it has 2"),
    ],
)
def test_streams_that_ask_for_more_than_there_is(dataset, root, name, message):
    def call() -> None:
        request = Request(name, "patchcore", data_root=root)
        protocol = requested_protocol(request)
        train_samples(requested_data(request, protocol), protocol)

    assert message in error_of(call)


@pytest.mark.parametrize("transform", LEVELS)
def test_a_drift_beyond_its_range_is_named_with_what_is_allowed(tmp_path, transform):
    path = tmp_path / "mine.yaml"
    name, lowest, highest = LEVELS[transform][-1]
    good = [low for _, low, _ in LEVELS[transform]]
    bad = [*good[:-1], highest + 1]
    path.write_text(
        json.dumps({"id": "mine", "kind": "drift", "transform": transform, "levels": [good, bad]})
    )
    message = error_of(lambda: find_stream(str(path)))
    assert f"{path}: levels[1]: {name} is" in message and f"must be from {lowest:g} to {highest:g}" in message


def test_a_drift_of_ones_own_runs_by_its_file(tmp_path):
    path = tmp_path / "dim.yaml"
    path.write_text(json.dumps({"id": "dim", "kind": "drift", "transform": "lighting", "levels": [[0.5]]}))
    assert resolve_protocol(f"parts@{path}", OBJECTS).id == "parts@dim+bolt"
