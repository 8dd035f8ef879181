"""--precision, --compile and the allocator: options that change numbers are part of the recipe's identity."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys

import pytest
import torch
from tiny import tiny_plan, tiny_run

from iufbench.models.iuf import IUFNetwork
from iufbench.models.uniad import UniAD
from iufbench.support.errors import InputError


def small(network=UniAD, **more):
    torch.manual_seed(0)
    sizes = {"hidden": 32, "heads": 4, "feedforward": 40, "encoder_layers": 2, "decoder_layers": 2}
    return network(16, feature_size=(5, 5), jitter_scale=0.0, dropout=0.0, **sizes, **more)


@pytest.mark.parametrize("kind", [UniAD, IUFNetwork])
def test_bf16_rounds_products_and_leaves_types_alone(kind):
    more = {"objects": 3} if kind is IUFNetwork else {}
    x, image = torch.randn(4, 16, 5, 5), torch.randn(4, 3, 10, 10)
    exact, rounded = (small(kind, precision=p, **more)(x, guide=image) for p in ("fp32", "bf16"))
    assert rounded.reconstruction.dtype == rounded.decoder_features[0].dtype == torch.float32
    difference = (exact.reconstruction - rounded.reconstruction).abs().max()
    assert 1e-5 < difference < 0.05 * exact.reconstruction.abs().max(), "bfloat16 has 8 bits"
    rounded.reconstruction.square().mean().backward()
    if more:
        assert rounded.class_logits.dtype == torch.float32
        assert torch.allclose(exact.class_logits, rounded.class_logits, atol=0.05)


def test_unknown_precision_is_an_error():
    with pytest.raises(InputError, match="fp32, tf32, bf16"):
        small(precision="fp8")


def test_only_what_changes_scores_is_part_of_the_identity(data, tmp_path):
    plans = [
        tiny_plan("uniad", data, tmp_path, **more)
        for more in ({}, {"precision": "fp32"}, {"threads": 2}, {"precision": "bf16"}, {"compile": True})
    ]
    plain, fp32, threads, bf16, compiled = (plan.recipe_hash for plan in plans)
    assert plain == fp32 == threads
    assert len({plain, bf16, compiled}) == 3
    assert plain == plans[0].recipe.fingerprint(), "a default run keeps the identity of its recipe"


@pytest.mark.parametrize("more", [{"precision": "bf16"}, {"compile": True}])
def test_a_memory_bank_refuses_what_it_would_ignore(more, data, tmp_path):
    with pytest.raises(InputError, match="trains no network"):
        tiny_plan("padim", data, tmp_path, **more)


def test_a_run_in_bf16_is_recorded_and_repeats_itself(data, tmp_path):
    runs = [tiny_run("iuf", data, tmp_path / name, precision="bf16") for name in "ab"]
    assert runs[0].info["request"]["precision"] == "bf16"
    assert runs[0].metrics.equals(runs[1].metrics)


_ALLOCATE = """
import resource, sys, torch
from iufbench.support.allocator import keep_freed_memory
x = torch.rand(16 * 2**20)
def work():
    for _ in range(20): y = x * 2  # 64 MiB a time
def faults():
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc")
def test_freed_memory_is_used_again_without_page_faults():
    """Of twenty tensors at most two come from new pages: the place of a small object decides."""
    program = [sys.executable, "-c", _ALLOCATE]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    before, kept, after = done.stdout.split()
    assert kept == "True"
    assert int(after) < 2.5 / 20 * int(before)


@dataclasses.dataclass
class Compiled:
    """Replaces torch.compile, which takes half a minute: counts calls."""

    model: torch.nn.Module
    modes: list[bool] = dataclasses.field(default_factory=list)

    def __call__(self, *args, **named):
        self.modes.append(self.model.training)
        return self.model(*args, **named)


def test_compiled_code_runs_in_training_only(data, tmp_path, monkeypatch, three_objects):
    made = []

    def compile(model):
        made.append(Compiled(model))
        return made[-1]

    monkeypatch.setattr(torch, "compile", compile)
    run = tiny_run("iuf", data, tmp_path / "a", compile=True)
    assert made[0].modes and all(made[0].modes), "collecting and evaluation see the network itself"
    monkeypatch.undo()
    eager = three_objects("iuf")
    assert run.metrics["value"].equals(eager.metrics["value"])
    assert run.info["recipe_hash"] != eager.info["recipe_hash"]
