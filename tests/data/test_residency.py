"""The location of a run's inputs is derived from sizes, and never changes a batch."""

from __future__ import annotations

import errno
import os
import threading

import pytest
import torch
from torch.utils.data import DataLoader, SubsetRandomSampler

from iufbench.data.residency import Home, choose, home_for
from iufbench.data.resident import Batches, ResidentData
from iufbench.support.errors import RunError

GB = 10**9


@pytest.mark.parametrize(
    ("needed", "host", "device", "kind"),
    [
        (5 * GB, 20 * GB, 10 * GB, "device"),  # half of what the GPU has free
        (5 * GB + 1, 20 * GB, 10 * GB, "pinned"),
        (14 * GB, 20 * GB, 10 * GB, "pinned"),  # 70 % of what the host has free
        (14 * GB + 1, 20 * GB, 10 * GB, "mapped"),
        (14 * GB + 1, 20 * GB, 80 * GB, "device"),
        (14 * GB, 20 * GB, None, "memory"),
        (14 * GB + 1, 20 * GB, None, "mapped"),
        (0, 0, None, "memory"),
    ],
)
def test_the_fastest_place_with_a_margin_is_chosen(needed, host, device, kind):
    assert choose(needed, host, device) == kind


def test_the_home_follows_what_is_free(tmp_path):
    assert home_for(1, torch.device("cpu"), tmp_path).kind == "memory"
    assert home_for(1 << 60, torch.device("cpu"), tmp_path).kind == "mapped"


def test_a_mapped_tensor_is_one_like_any_other_and_leaves_no_file(tmp_path):
    tensor = Home("mapped", folder=tmp_path / "new").empty((5, 3, 2), torch.float16)
    tensor[1:3] = torch.arange(12).view(2, 3, 2)
    assert tensor.shape == (5, 3, 2) and tensor.dtype == torch.float16
    assert tensor[2].tolist() == [[6, 7], [8, 9], [10, 11]]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_file_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    def full(handle, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match=r"2\.00 GB .*No space left.*IUFBENCH_CACHE"):
        Home("mapped", folder=tmp_path).empty((10**9,), torch.float16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["memory", "mapped"])
@pytest.mark.parametrize("images", [1, 7, 24])
def test_batches_have_the_order_and_content_of_a_plain_data_loader(tmp_path, kind, images):
    """For the same seed, over several epochs, including the last small batch."""
    features = Home(kind, folder=tmp_path).empty((images, 2, 3, 3), torch.float16)
    features[:] = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    data = ResidentData(features, torch.arange(images) % 3, None, ahead=kind == "mapped")
    ours = Batches(data, 5, torch.Generator().manual_seed(11))
    sampler = SubsetRandomSampler(range(images), generator=torch.Generator().manual_seed(11))
    plain = DataLoader(data, batch_size=5, sampler=sampler)
    assert len(ours) == len(plain)
    for _ in range(3):
        for batch, (x, y, *_) in zip(ours, plain, strict=True):
            assert torch.equal(batch.x, x) and torch.equal(batch.y, y) and batch.x.dtype == torch.float32


def test_the_next_batch_is_gathered_while_one_is_used():
    data, asked = ResidentData(torch.zeros(6, 1, 1, 1), torch.zeros(6, dtype=torch.int64), None, True), []

    def gather(index, original=data.batch):
        asked.append(threading.current_thread())
        return original(index)

    data.batch = gather
    batches = iter(Batches(data, 2))
    next(batches)
    batches.close()  # whoever leaves early leaves no thread behind
    assert len(asked) == 2 and threading.main_thread() not in asked
    assert not any(thread.is_alive() for thread in asked)


def test_parts_in_different_places_join_where_the_first_lies(tmp_path):
    parts = [
        ResidentData(Home(kind, folder=tmp_path).empty((2, 1, 1, 1), torch.float16).fill_(k), ids, None)
        for k, (kind, ids) in enumerate([("memory", torch.tensor([0, 0])), ("mapped", torch.tensor([1, 1]))])
    ]
    joined = ResidentData.concatenate(parts)
    assert joined.features.flatten().tolist() == [0, 0, 1, 1] and joined.objects.tolist() == [0, 0, 1, 1]
