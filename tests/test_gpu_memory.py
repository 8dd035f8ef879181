"""What a training step needs on a GPU is known before; and recomputing activations changes no gradient."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from recorded import Recorder
from test_step import exact
from tiny import assembled, tiny_plan

from iufbench.cards.request import Request
from iufbench.engine import gpu_memory, kernels, runner
from iufbench.engine.gpu_memory import GIB, check_gpu_memory, needed_bytes
from iufbench.engine.kernels import KernelShare, kernel_share
from iufbench.engine.plan import prepare
from iufbench.models.iuf import IUFNetwork
from iufbench.support.errors import InputError
from iufbench.support.progress import Progress
from iufbench.support.seeding import seed_everything

CUDA = torch.device("cuda")
ON_AN_H100 = 49 * GIB  # allocated by iuf_release at batch 24 in float32


def test_the_estimate_is_what_a_card_took(data, tmp_path):
    request = Request(
        "visa_2_1", "iuf_release", data_root=data, preset="paper", device="cpu", results=tmp_path
    )
    plan = prepare(request, progress=False)
    needed = needed_bytes(plan, 24)
    assert 0.85 * ON_AN_H100 < needed <= ON_AN_H100
    assert needed_bytes(plan, 24, saving=True) < 0.45 * needed


def free(monkeypatch, gib):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(gib * GIB), 80 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some Card")


def test_too_little_memory_is_told_before_images_are_read(data, tmp_path, monkeypatch):
    plan = tiny_plan("iuf", data, tmp_path / "results", precision="bf16")
    monkeypatch.setattr(gpu_memory, "needed_bytes", lambda plan, size, saving=False: (4 - 2 * saving) * GIB)
    assert check_gpu_memory(plan, torch.device("cpu")) is None
    monkeypatch.setattr(gpu_memory, "PLENTY", 100 * GIB)
    free(monkeypatch, 4.5)
    assert check_gpu_memory(plan, CUDA) is None
    free(monkeypatch, 3)
    assert "4.0 GiB of GPU memory and 3.0 GiB are free" in check_gpu_memory(plan, CUDA)
    free(monkeypatch, 1)
    monkeypatch.setattr(runner, "choose_device", lambda name: CUDA)
    monkeypatch.setattr(runner, "assemble", lambda *arguments: pytest.fail("images are read"))
    with pytest.raises(
        InputError, match=r"at batch size 4 in bf16 needs at least 2.0 GiB, Some Card has 1.0"
    ):
        runner.execute(plan, Progress(-1))
    with pytest.raises(InputError, match=r"--set base.batch_size=2\) or use --precision bf16"):
        check_gpu_memory(tiny_plan("iuf", data, tmp_path), CUDA)
    assert check_gpu_memory(tiny_plan("padim", data, tmp_path), CUDA) is None
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("strategy", ["uniad", "separate"])
def test_other_networks(data, tmp_path, strategy):
    """Small ones are counted as well; more images need more."""
    plan = tiny_plan(strategy, data, tmp_path)
    small, large = (needed_bytes(plan, size) for size in (2, 20))
    assert (small is None and large is None) or 0 < small < large < 20 * small
    assert strategy == "separate" or small is not None


def test_a_network_that_cannot_save_memory(data, tmp_path):
    assert needed_bytes(tiny_plan("dinomaly", data, tmp_path), 2, saving=True) is None


def gradients(checkpointed):
    torch.manual_seed(0)
    network = IUFNetwork(
        4, 2, hidden=8, heads=2, feedforward=8, feature_size=(4, 4), dropout=0.0, jitter_scale=0.0
    )
    if checkpointed:
        network.save_memory()
    output = network(torch.randn(2, 4, 4, 4), guide=torch.randn(2, 3, 12, 12))
    (output.reconstruction.square().sum() + output.class_logits.square().sum()).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def test_recomputed_activations_give_the_same_gradients():
    for (name, one), other in zip(gradients(True).items(), gradients(False).values()):
        assert (one is None and other is None) or torch.equal(one, other), name


def test_recomputing_fits_into_a_captured_iteration(data, tmp_path):
    weights = []
    for saving in (False, True):
        _, parts = assembled("iuf_without_scl", data, tmp_path, settings=("base.epochs=5",))
        learner = exact(parts.strategy)
        learner.capture = Recorder()
        if saving:
            learner.model.save_memory()
        seed_everything(0)
        learner.train(parts.streams.train[0], eval_streams=[])
        assert learner.capture.replays > 5
        weights.append(learner.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-9, atol=1e-12, msg=name)


class Fake:
    opened = closed = 0

    def open(self):
        self.opened += 1

    def close(self):
        self.closed += 1
        return 3.0


def test_the_share_of_kernels_is_measured_once_in_a_window(monkeypatch):
    window, times = Fake(), iter([10.0, 14.0])
    monkeypatch.setattr(kernels.time, "perf_counter", lambda: next(times))
    strategy = SimpleNamespace(device=CUDA, plugins=[], clock=SimpleNamespace(train_exp_epochs=0))
    with kernel_share(strategy, kernels.WORTH, window) as measured:
        assert strategy.plugins == [measured]
        for iteration in range(80):
            strategy.clock.train_exp_epochs = iteration // 10
            measured.before_training_iteration(strategy)
            measured.after_training_iteration(strategy)
            assert (measured.share is None) == (iteration < 20 + kernels.LENGTH - 1)
    assert measured.share == 0.75 and window.opened == window.closed == 1 and strategy.plugins == []


def test_operations_are_not_counted_beside_their_kernels():
    def event(device, microseconds, user=False):
        return SimpleNamespace(
            device_type=device, self_device_time_total=microseconds, is_user_annotation=user
        )

    on_cpu, on_gpu = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA
    events = [event(on_cpu, 3e6), event(on_gpu, 2e6), event(on_gpu, 1e6), event(on_gpu, 9e6, True)]
    assert kernels.kernel_seconds(SimpleNamespace(key_averages=lambda: events)) == 3.0


@pytest.mark.parametrize(("device", "iterations"), [("cpu", 10**6), ("cuda", kernels.WORTH - 1)])
def test_no_window_on_the_cpu_or_in_a_short_training(device, iterations):
    strategy = SimpleNamespace(device=torch.device(device), plugins=[])
    with kernel_share(strategy, iterations) as measured:
        assert strategy.plugins == [] and isinstance(measured, KernelShare)
    assert measured.share is None


@pytest.mark.gpu
def test_a_step_on_a_card_allocates_what_was_estimated(data, tmp_path):
    """Larger than tiny: there, allocations are rounded up by more than they hold."""
    wide = ("network.hidden=256", "network.feedforward=1024", "base.batch_size=24", "base.epochs=3")
    plan = tiny_plan("uniad", data, tmp_path, wide, device="cuda", precision="fp32", step="eager")
    parts = runner.assemble(plan, CUDA, Progress(-1))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    parts.strategy.train(parts.streams.train[0], eval_streams=[])
    weights = sum(p.nbytes for p in parts.strategy.model.parameters())
    taken = torch.cuda.max_memory_allocated() - before + weights
    images = len(parts.streams.train[0].resident)
    assert 0.6 * taken < needed_bytes(plan, images) < 1.2 * taken


@pytest.mark.gpu
def test_the_profiler_sees_kernels():
    window, square = kernels.Profiler(), torch.randn(2048, 2048, device="cuda")
    window.open()
    for _ in range(20):
        square = square @ square / 2048
    assert 0 < window.close() < 10
