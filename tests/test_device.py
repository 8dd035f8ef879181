"""Unavailable devices and precisions: one line with a remedy, before data are read."""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny import tiny_plan

from iufbench.support import device
from iufbench.support.device import choose_device, choose_precision
from iufbench.support.errors import InputError


@pytest.fixture
def card(monkeypatch):
    """A CUDA device of a compute capability, as far as the choice of precision is concerned."""

    def plug_in(capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some Card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)

    return plug_in


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    assert choose_precision("auto", "auto") == choose_precision("auto", "cpu") == "fp32"
    assert choose_precision("bf16", "auto") == choose_precision("bf16", "cpu") == "bf16"
    with pytest.raises(InputError, match="tf32: only CUDA devices"):
        choose_precision("tf32", "auto")
    with pytest.raises(InputError, match="use --precision bf16 or fp32"):
        choose_precision("auto", "cuda")
    with pytest.raises(InputError, match="unknown"):
        choose_precision("fp8", "cpu")


def test_auto_takes_bf16_where_the_card_has_it(card):
    card((9, 0))
    assert [choose_precision(p, "auto") for p in ("auto", "fp32", "tf32")] == ["bf16", "fp32", "tf32"]
    assert choose_precision("auto", "cpu") == "fp32"


@pytest.mark.parametrize("name", ["bf16", "tf32"])
def test_a_card_without_bf16(card, name):
    card((7, 5))
    assert choose_precision("auto", "cuda:0") == "fp32"
    with pytest.raises(InputError, match=f"--precision {name}: Some Card does not support it"):
        choose_precision(name, "cuda")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_driver_that_is_too_old_is_not_taken_for_no_gpu(name, monkeypatch):
    def unavailable():
        warnings.warn("The NVIDIA driver on your system is too old (found version 11040)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    with pytest.raises(InputError, match="driver is too old for this build of torch"):
        choose_device(name)
    assert choose_device("cpu").type == "cpu"


def test_products_are_rounded_to_tf32_only_when_asked_for():
    device.set_products("tf32")
    assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    device.set_products("fp32")
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("before", ["fp32", "tf32"])
def test_features_never_depend_on_what_another_run_set(before):
    def flags():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    device.set_products(before)
    try:
        with device.full_products(torch.device("cuda")):
            assert flags() == (False, False)
        assert flags() == ((before == "tf32"),) * 2
        with device.full_products(torch.device("cpu")):
            assert flags() == ((before == "tf32"),) * 2
    finally:
        device.set_products("fp32")


@pytest.mark.parametrize(
    ("strategy", "step", "message"),
    [
        ("uniad", "graph", "--step graph: CUDA graphs need a CUDA device"),
        ("uniad", "fast", "--step fast: unknown"),
        ("padim", "graph", "--step graph: padim trains no network"),
    ],
)
def test_a_step_that_cannot_be(strategy, step, message, data, tmp_path):
    with pytest.raises(InputError, match=message):
        tiny_plan(strategy, data, tmp_path, step=step)


def test_a_strategy_that_cannot_be_captured(card, data, tmp_path):
    card((9, 0))
    with pytest.raises(InputError, match="--step graph: separate cannot: which network learns"):
        tiny_plan("separate", data, tmp_path, device="cuda", step="graph")
    for setting, reason in (
        ("network.jitter_probability=0.5", "drawn on the CPU"),
        ("increment.optimizer=stable_adamw", "the optimiser stable_adamw"),
    ):
        with pytest.raises(InputError, match=f"--step graph: uniad cannot: .*{reason}.*use --step auto"):
            tiny_plan("uniad", data, tmp_path, (setting,), device="cuda", step="graph")


def test_a_plan_leaves_no_precision_open(card, data, tmp_path):
    here = tiny_plan("uniad", data, tmp_path, device="cpu")
    card((9, 0))
    there = tiny_plan("uniad", data, tmp_path, device="cuda")
    exact = tiny_plan("uniad", data, tmp_path, device="cuda", precision="fp32", step="graph")
    assert (here.request.precision, there.request.precision) == ("fp32", "bf16")
    assert here.recipe_hash == exact.recipe_hash != there.recipe_hash
    assert tiny_plan("padim", data, tmp_path, device="cuda").request.precision == "fp32"
