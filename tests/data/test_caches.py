"""Images, guides and features through their caches: the same bytes, less work, no fault that ends a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from caching import Means, inputs, loaded
from notes import Notes

from iufbench.data import resident
from iufbench.data.cache import array_store, entry
from iufbench.data.cache import images as image_cache
from iufbench.data.cache.features import encode, in_batches
from iufbench.data.cache.images import Files, cached_images
from iufbench.data.datasets import open_dataset
from iufbench.data.images import load_image
from iufbench.models.backbone import BackboneSpec, FrozenBackbone
from iufbench.models.features import Features
from iufbench.support.device import set_products
from iufbench.support.errors import InputError, RunError
from iufbench.support.processes import in_processes
from iufbench.support.progress import Progress


@pytest.fixture
def dataset(data, tmp_path):
    """The tiny VisA, in a folder of this test."""
    return open_dataset("visa", None, shutil.copytree(data, tmp_path / "visa"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def equal(one, two) -> bool:
    return torch.equal(one.features, two.features) and torch.equal(one.guide, two.guide)


def kinds(folder):
    return sorted(p.parent.name for p in folder.glob("*/*"))


def test_what_comes_from_the_cache_is_what_is_computed(dataset, folder):
    live = loaded(dataset, inputs())
    for expected in (39, 0):  # images that are encoded, the first time and then
        backbone = Means()
        cached = inputs(backbone)
        cached.use_cache(folder, dataset, Notes())
        assert equal(loaded(dataset, cached), live) and backbone.encoded == expected
    assert kinds(folder) == ["features", "guides", "images"]


def test_a_full_cache_needs_neither_the_files_nor_the_image_cache(dataset, folder, monkeypatch):
    inputs().use_cache(folder, dataset, Notes())
    shutil.rmtree(folder / "images")
    monkeypatch.setattr(image_cache, "load_image", None)
    monkeypatch.setattr(resident, "load_image", None)
    again, notes = inputs(), Notes()
    again.use_cache(folder, dataset, notes)
    assert loaded(dataset, again).guide.shape == (39, 3, 8, 8) and notes.said == []


@pytest.mark.parametrize(
    ("change", "more"),
    [
        (partial(inputs, Means("other weights")), ["features"]),
        (partial(inputs, Means(layers=(0, 1))), ["features"]),
        (partial(inputs, Means(padding="released")), ["features"]),
        (partial(inputs, precision=torch.float32), ["features"]),
        (partial(inputs, guide=4), ["guides"]),
        (partial(inputs, size=48), ["features", "guides", "images"]),
        (inputs, []),
    ],
)
def test_everything_that_decides_a_number_has_its_own_entry(dataset, folder, change, more):
    inputs().use_cache(folder, dataset, Notes())
    before = set(folder.glob("*/*"))
    changed, notes = change(), Notes()
    changed.use_cache(folder, dataset, notes)
    assert sorted(p.parent.name for p in set(folder.glob("*/*")) - before) == more
    assert before <= set(folder.glob("*/*")) and "have changed" not in notes.text
    assert equal(loaded(dataset, changed), loaded(dataset, change()))


def test_images_that_changed_are_decoded_again(dataset, folder):
    """Same name, same size in bytes, different content: detected by the modification time."""
    inputs().use_cache(folder, dataset, Notes())
    path, fingerprint = dataset.samples[3].image, dataset.fingerprint()
    content, status = bytearray(path.read_bytes()), path.stat()
    content[content.index(b"\xff\xdb") + 5] ^= 3  # a JPEG's quantisation table: other contrast
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert dataset.fingerprint() == fingerprint  # a run's identity does not look at times
    notes, changed = Notes(), inputs()
    changed.use_cache(folder, dataset, notes)
    found = loaded(dataset, changed)
    assert notes.text.count("have changed") == 3 and kinds(folder) == ["features", "guides", "images"]
    assert equal(found, loaded(dataset, inputs()))


def test_corrupted_entries_are_reported_and_rebuilt(dataset, folder):
    inputs().use_cache(folder, dataset, Notes())
    for path in folder.glob("*/*/*.npy"):
        os.truncate(path, path.stat().st_size // 2)
    notes, again = Notes(), inputs()
    again.use_cache(folder, dataset, notes)
    assert notes.text.count("it is rebuilt") == 3
    assert equal(loaded(dataset, again), loaded(dataset, inputs()))


def a_file_is_in_the_way(folder, monkeypatch):
    folder.write_text("")


def little_room(folder, monkeypatch):
    monkeypatch.setattr(array_store, "free_space", lambda folder: 300)


def failing_disk(folder, monkeypatch):
    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_store.os, "fsync", fail)


@pytest.mark.parametrize(
    ("trouble", "reason", "said"),
    [
        (a_file_is_in_the_way, "File exists", 1),
        (little_room, "are available", 2),
        (failing_disk, "No space left on device", 1),
    ],
)
def test_without_a_usable_cache_it_continues_in_memory(dataset, folder, monkeypatch, trouble, reason, said):
    trouble(folder, monkeypatch)
    given, notes = inputs(), Notes()
    given.use_cache(folder, dataset, notes)
    assert reason in notes.text and notes.text.count("continuing in memory") == said
    assert equal(loaded(dataset, given), loaded(dataset, inputs()))
    assert not [p for p in folder.rglob("*") if p.is_file()]


def test_what_fits_is_cached_and_the_rest_is_not(dataset, folder, monkeypatch):
    """At 32 pixels an image takes 3072 bytes, a guide 192 and features 24."""
    monkeypatch.setattr(array_store, "free_space", lambda folder: 10_000)
    given, notes = inputs(), Notes()
    given.use_cache(folder, dataset, notes)
    assert kinds(folder) == ["features", "guides"] and notes.text.count("continuing in memory") == 1
    assert "needs 119.81 kB" in notes.text
    assert equal(loaded(dataset, given), loaded(dataset, inputs()))


def test_an_unreadable_image_is_named_and_leaves_nothing(dataset, folder):
    dataset.samples[-1].image.write_bytes(b"no image")
    with pytest.raises(InputError, match=dataset.samples[-1].image.name):
        inputs().use_cache(folder, dataset, Notes())
    assert not [p for p in folder.rglob("*") if p.is_file()]


def test_many_images_are_decoded_by_several_processes(dataset, folder, monkeypatch):
    monkeypatch.setattr(image_cache, "CHUNK", 8)
    monkeypatch.setattr(entry, "FILE_ROWS", 30)
    monkeypatch.setattr(image_cache, "in_processes", partial(in_processes, workers=2))
    files = Files(dataset)
    found = cached_images(folder, files, 32, Progress(-1))
    assert len(files.paths) == 39
    assert all(np.array_equal(found[path], load_image(path, 32)) for path in files.paths)


def test_a_script_without_a_main_guard_does_not_wait_for_itself(dataset, folder, tmp_path):
    """Its worker processes run it again, up to the cache entry that it holds."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import sys\nfrom functools import partial\nfrom pathlib import Path\n"
        "from iufbench.data.cache import images as image_cache\n"
        "from iufbench.data.datasets import open_dataset\n"
        "from iufbench.support.progress import Progress\n"
        "image_cache.CHUNK = 8\n"
        "image_cache.in_processes = partial(image_cache.in_processes, workers=2)\n"
        "files = image_cache.Files(open_dataset('visa', None, Path(sys.argv[1])))\n"
        "found = image_cache.cached_images(Path(sys.argv[2]), files, 32, Progress())\n"
        "print(len(found.of(files.paths)))\n"
    )
    done = subprocess.run(
        [sys.executable, script, dataset.root, folder], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "39\n" and done.returncode == 0
    assert "if __name__ == '__main__'" in done.stderr and "continuing with one process" in done.stderr


@pytest.mark.parametrize("padding", ["timm", "released"])
def test_features_depend_on_the_image_alone(data, padding, restored_threads):
    """Independent of threads, order and batch. With two threads for one image or two images in a batch,
    torch's own numbers differ: this is the reason for the rule.
    """
    backbone = FrozenBackbone(BackboneSpec("tf_efficientnet_lite0", weights="package", padding=padding))
    paths = sorted(data.rglob("*.JPG"))[:9]

    def found(paths, threads):
        torch.set_num_threads(threads)
        encoded = encode(backbone, paths, lambda p: load_image(p, 64), torch.float32)
        return dict(zip(paths, [features for _, features in encoded]))

    torch.set_num_threads(1)
    alone = {p: backbone.features(torch.from_numpy(load_image(p, 64)[None].copy()))[0] for p in paths}
    for order, threads in ((paths, 1), (paths[::-1], 3), (paths[5:], 2)):
        again = found(order, threads)
        assert list(again) == order and all(torch.equal(again[p], alone[p]) for p in order)
        assert torch.get_num_threads() == threads


def test_a_gpu_gets_batches_of_one_size(data):
    """The last one is filled up; rows are those of the images alone but for rounding, in their order."""
    backbone = FrozenBackbone(BackboneSpec("tf_efficientnet_lite0", weights="package"))
    paths, sizes, encode_all = sorted(data.rglob("*.JPG"))[:7], [], backbone.encode

    def noted(images):
        sizes.append(len(images))
        return encode_all(images)

    backbone.encode = noted
    found = list(in_batches(backbone, paths, lambda p: load_image(p, 64), torch.float32, size=3))
    assert sizes == [3, 3, 3] and len(found) == 7
    for path, (pixels, row) in zip(paths, found):
        assert np.array_equal(pixels, load_image(path, 64))
        alone = backbone.shape(64).pack(encode_all(torch.from_numpy(pixels[None].copy())))[0]
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-4)
    again = list(in_batches(backbone, paths[:4], lambda p: load_image(p, 64), torch.float32, size=3))
    assert all(torch.equal(one[1], other[1]) for one, other in zip(again, found))
    assert list(in_batches(backbone, [], None, torch.float32)) == []
    huge, second = Means(), (torch.arange(3) == 1)[:, None, None, None]
    huge.encode = lambda images: Features(second * 1e9 * torch.ones(3, 3, 4, 4), None)
    with pytest.raises(RunError, match=f"features of {paths[1]} do not fit torch.float16"):
        list(in_batches(huge, paths, lambda p: load_image(p, 64), torch.float16, size=3))


@pytest.mark.gpu
def test_features_on_a_gpu_depend_on_the_image_alone(data):
    """Neither on its place in a batch, nor on its company, nor on a run with TF32 before."""
    backbone = FrozenBackbone(BackboneSpec("tf_efficientnet_lite0", weights="package"), "cuda")
    paths = sorted(data.rglob("*.JPG"))[:40]

    def found(paths):
        return dict(
            zip(
                paths, (row for _, row in encode(backbone, paths, lambda p: load_image(p, 64), torch.float32))
            )
        )

    there = found(paths)
    set_products("tf32")
    try:
        back = found(paths[::-1])
    finally:
        set_products("fp32")
    assert all(torch.equal(there[path], back[path]) for path in paths)


def test_a_vector_beside_the_map_is_cached_with_it(dataset, folder):
    backbone = Means(vector="mean")
    given = inputs(backbone)
    given.use_cache(folder, dataset, Progress(-1))
    found = loaded(dataset, given)
    encoded = backbone.encoded
    again = inputs(backbone)
    again.use_cache(folder, dataset, Progress(-1))
    once_more = loaded(dataset, again)
    assert backbone.encoded == encoded == len(set(Files(dataset).paths))
    direct = loaded(dataset, inputs(backbone))
    for data in (once_more, direct):
        assert torch.equal(found.features, data.features) and torch.equal(found.vectors, data.vectors)
    assert found.vectors.shape == (len(dataset.samples), 3)
    batch = found.batch(torch.tensor([2, 0]))
    assert torch.equal(batch.vector, found.vectors[[2, 0]].float())
