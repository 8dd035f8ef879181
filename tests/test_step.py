"""A captured iteration computes what an eager one does; on the CPU a recorder replaces CUDA graphs."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from recorded import Recorder
from tiny import assembled

from iufbench.cards.registry import card_paths, load_class
from iufbench.cards.strategies import load_strategy
from iufbench.learning import step
from iufbench.learning.step import Step, why_eager
from iufbench.strategies import iuf
from iufbench.support.errors import RunError
from iufbench.support.seeding import seed_everything

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

TRAINED = sorted(
    name
    for name, path in card_paths("strategy").items()
    if load_class(load_strategy(name).content["learner"], path).uses.gradients
)
# 9 epochs of 3 batches (12 images) and 13 of 2 (6 images), the last of each epoch smaller.
SETTINGS = (
    "base.batch_size=5",
    "increment.batch_size=5",
    "base.epochs=9",
    "increment.epochs=13",
    "base.schedule=cosine",
    "base.warmup_iterations=3",
    "network.dropout=0.1",
)


def exact(learner):
    """In float64: Adam divides gradients that are zero up to rounding by their own size."""
    learner.model.double()
    if hasattr(learner, "_pixels"):
        learner._pixels = tuple(tensor.double() for tensor in learner._pixels)
    return learner


def trained(strategy, data, tmp_path, capture=None, settings=SETTINGS):
    """The learner after 53 iterations of two experiences."""
    _, parts = assembled(strategy, data, tmp_path, settings=settings)
    learner = exact(parts.strategy)
    learner.capture = capture
    for number, experience in enumerate(parts.streams.train):
        seed_everything(number)
        learner.train(experience, eval_streams=[])
    return learner


@pytest.mark.parametrize("strategy", TRAINED)
def test_captured_and_eager_agree(strategy, data, tmp_path):
    """Static inputs, state after the warm-up, smaller last batches, rates, new classes, remembered images."""
    capture = Recorder()
    eager = trained(strategy, data, tmp_path)
    captured = trained(strategy, data, tmp_path, capture)
    if why_eager(eager) is not None:
        assert capture.captures == 0
        return
    halves = 2 if captured.clock.train_exp_counter and "compression" in eager.training_log[-1] else 1
    assert capture.captures >= 1 and capture.replays >= 20 * halves
    ours, theirs = captured.model.state_dict(), eager.model.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert len(captured.training_log) == len(eager.training_log)
    for one, other in zip(captured.training_log, eager.training_log):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert captured.replayed_images == eager.replayed_images
    assert captured.bytes_kept == eager.bytes_kept


def test_the_compression_loss_by_products_is_captured_as_by_eigenvalues(data, tmp_path, monkeypatch):
    """As on a GPU that is fast in float64, with a window that removes rows."""
    settings = (*SETTINGS, "base.epochs=3", "increment.epochs=3", "scl.first=3", "scl.window=16")
    expected, capture = trained("iuf", data, tmp_path, settings=settings), Recorder()
    monkeypatch.setattr(iuf, "has_fast_float64", lambda device: True)
    captured = trained("iuf", data, tmp_path, capture, settings=settings)
    assert captured.apart() == [] and capture.captures >= 1 and capture.replays >= 5
    ours, theirs = captured.model.state_dict(), expected.model.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)
    for one, other in zip(captured.training_log, expected.training_log):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert min(row["compression"] for row in captured.training_log) > 0.01
    for one, other in zip(captured.window, expected.window, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def learner_of(data, tmp_path, strategy="uniad", settings=(), **changes):
    _, parts = assembled(strategy, data, tmp_path, settings=settings)
    for name, value in changes.items():
        object.__setattr__(parts.strategy.context, name, value)
    parts.strategy.capture = Recorder()
    return parts.strategy, parts.streams.train[0]


class Inside:
    def before_update(self, strategy, **kwargs):
        pass


def test_what_cannot_be_captured_says_why_and_is_eager(data, tmp_path):
    coin, _ = learner_of(data, tmp_path, settings=("network.jitter_probability=0.5",))
    assert "drawn on the CPU" in why_eager(coin)
    listening, experience = learner_of(data, tmp_path)
    assert why_eager(listening) is None
    listening.plugins.append(Inside())
    assert "plugin Inside acts inside" in why_eager(listening)
    listening.train(experience, eval_streams=[])
    assert listening.capture.captures == 0


def test_a_strategy_that_waits_for_the_device_falls_back_and_trains_as_it_would(data, tmp_path):
    """Such as a user-defined one with a branch on a number: detected only when the capture fails."""
    results = []
    for capture in (None, Recorder()):
        learner, experience = learner_of(data, tmp_path)
        exact(learner).capture = capture
        original = learner.losses

        def losses(original=original):
            terms = original()
            return terms if float(terms["reconstruction"].detach()) >= 0 else {}

        learner.losses = losses
        seed_everything(0)
        learner.train(experience, eval_streams=[])
        results.append(learner.model.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_graph_that_was_asked_for_and_cannot_be_is_an_error(data, tmp_path):
    learner, experience = learner_of(data, tmp_path, step="graph")
    learner.plugins.append(Inside())
    with pytest.raises(RunError, match=r"--step graph: .*plugin Inside"):
        learner.train(experience, eval_streams=[])
    learner, experience = learner_of(data, tmp_path, step="eager")
    learner.train(experience, eval_streams=[])
    assert learner.capture.captures == 0
    assert Step(learner).reason is None


def test_a_shape_is_captured_when_it_occurs_again(data, tmp_path):
    """12 images in batches of 8: both shapes, after the first epoch; nothing in a single epoch."""
    for epochs, captures, replays in ((1, 0, 0), (4, 4, 12)):  # two graphs a shape: before and after the loss
        settings = ("base.batch_size=8", f"base.epochs={epochs}")
        learner, experience = learner_of(data, tmp_path, settings=settings)
        assert len(experience.resident) == 12
        learner.train(experience, eval_streams=[])
        assert (learner.capture.captures, learner.capture.replays) == (captures, replays)
        assert learner.step_note is None


class Compiled:
    """Replaces torch.compile: ``sizes`` of the batches that it received."""

    def __init__(self, model, works=True):
        self.model, self.works, self.sizes = model, works, set()

    def __call__(self, x, **arguments):
        if not self.works:
            raise RuntimeError("Failed to find C compiler\nmore")
        self.sizes.add(len(x))
        return self.model(x, **arguments)


@pytest.mark.parametrize("works", [True, False])
def test_a_long_experience_is_compiled_for_full_batches_if_that_works(works, data, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "worth_compiling", lambda strategy: True)
    weights, settings = [], ("base.batch_size=8", "base.epochs=3")
    for compiles in (False, True):
        learner, experience = learner_of(data, tmp_path, settings=settings)
        made = []
        monkeypatch.setattr(torch, "compile", lambda m, made=made: made.append(Compiled(m, works)) or made[0])
        if not compiles:
            learner.capture = None
        seed_everything(0)
        exact(learner).train(experience, eval_streams=[])
        weights.append(learner.model.state_dict())
    if works:
        assert made[0].sizes == {8} and learner.step_note is None
    else:
        assert "torch.compile failed (Failed to find C compiler)" in learner.step_note
        assert learner.capture.captures == 4  # but not the capture
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize(
    ("device", "epochs", "worth"), [("cuda", 2778, True), ("cuda", 2777, False), ("cpu", 9999, False)]
)
def test_compiling_must_be_earned_back(device, epochs, worth):
    clock = SimpleNamespace(train_exp_epochs=0)
    strategy = SimpleNamespace(
        train_epochs=epochs, clock=clock, dataloader=range(9), device=torch.device(device)
    )
    assert step.worth_compiling(strategy) is worth
    clock.train_exp_epochs = 1  # resumed: what has been trained does not count
    assert step.worth_compiling(strategy) is (epochs == 9999 and device == "cuda")


class FakeStream:
    def __init__(self, name):
        self.name = name

    def wait_stream(self, other):
        LOG.append(f"{self.name} waits for {other.name}")


LOG: list[str] = []


@pytest.fixture
def cuda(monkeypatch):
    """The part of torch.cuda that ``CudaGraphs`` uses; a failed capture raises at its end."""
    LOG.clear()
    outer, side = FakeStream("outer"), FakeStream("side")
    now = SimpleNamespace(stream=outer, mode=0, broken=False)

    @contextmanager
    def stream(wanted):
        before, now.stream = now.stream, wanted
        try:
            yield
        finally:
            now.stream = before

    class Capturing:
        def __init__(self, graph, pool=None, stream=None, capture_error_mode="global"):
            self.stream, self.mode = stream, capture_error_mode

        def __enter__(self):
            LOG.append(f"capture {self.mode}")
            now.stream, now.broken = self.stream, False

        def __exit__(self, kind, *rest):
            if kind is not None:
                raise RuntimeError("operation failed due to a previous error during capture")
            LOG.append("captured")

    fakes = {
        "Stream": lambda device: side, "current_stream": lambda device: now.stream, "stream": stream,
        "graph": Capturing, "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "graph_pool_handle": lambda: (0, 1), "get_sync_debug_mode": lambda: now.mode,
        "set_sync_debug_mode": lambda mode: setattr(now, "mode", mode),
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: LOG.append("zeros"))
    step._side_stream.cache_clear()
    yield now
    step._side_stream.cache_clear()


def test_functions_run_on_the_side_stream_and_strictly_where_asked(cuda):
    graphs, found = step.CudaGraphs(torch.device("cuda")), []
    graphs.run(lambda: found.append((cuda.stream.name, cuda.mode)))
    graphs.run(lambda: found.append((cuda.stream.name, cuda.mode)), strict=True)
    assert found == [("side", 0), ("side", "error")] and cuda.mode == 0
    assert LOG == ["side waits for outer", "outer waits for side"] * 2

    def waits():
        raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        graphs.run(waits, strict=True)
    assert cuda.mode == 0 and cuda.stream.name == "outer"


def test_a_failed_capture_leaves_neither_its_stream_nor_a_stuck_generator(cuda):
    graphs = step.CudaGraphs(torch.device("cuda"))

    def waits():
        raise RuntimeError("an error inside")

    with pytest.raises(RuntimeError, match="previous error during capture"):
        graphs(waits)
    assert cuda.stream.name == "outer"
    assert LOG == ["capture thread_local", "capture thread_local", "zeros", "captured"]


@pytest.mark.gpu
def test_after_a_failed_capture_random_numbers_are_drawn_as_before():
    device = torch.device("cuda")
    graphs, x = step.CudaGraphs(device), torch.ones(4, device=device)
    with pytest.raises(RuntimeError):
        graphs(lambda: x.sum().item())
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.manual_seed(0)
    first = torch.randn(4, device=device)
    torch.manual_seed(0)
    assert torch.equal(first, torch.randn(4, device=device))


@pytest.mark.gpu
def test_waiting_for_the_device_is_noticed_before_the_capture():
    graphs, x = step.CudaGraphs(torch.device("cuda")), torch.ones(4, device="cuda")
    with pytest.raises(RuntimeError, match="synchroniz"):
        graphs.run(lambda: x.sum().item(), strict=True)
    assert float(x.sum()) == 4


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_random_numbers_continue_and_a_resumed_training_draws_the_same(precision, data, tmp_path):
    """With dropout and jitter: two halves with a restored state end where a single training ends."""
    settings = ("base.batch_size=5", "base.epochs=6", "network.dropout=0.1")
    ends = []
    for stop in (None, 3):
        plan = {"settings": settings, "device": "cuda", "precision": precision, "step": "graph"}
        _, parts = assembled("uniad", data, tmp_path, **plan)
        learner, experience, state = parts.strategy, parts.streams.train[0], None
        seed_everything(0)
        for epoch, _ in enumerate(learner.train_by_epoch(experience), start=1):
            if epoch == stop:
                state = copy.deepcopy(learner.state_within())
                break
        if state is not None:
            _, parts = assembled("uniad", data, tmp_path, **plan)
            learner, experience = parts.strategy, parts.streams.train[0]
            seed_everything(99)
            for _ in learner.train_by_epoch(experience, state):
                pass
        ends.append((learner.model.state_dict(), [row["loss"] for row in learner.training_log]))
    assert len(set(ends[0][1])) == 6  # the noise of a replay is not that of the one before
    assert ends[0][1][-1] == pytest.approx(ends[1][1][-1], rel=1e-3)
    for name, value in ends[0][0].items():
        torch.testing.assert_close(ends[1][0][name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.gpu
def test_a_graph_frees_its_memory_after_the_experience(data, tmp_path):
    _, parts = assembled("uniad", data, tmp_path, settings=("base.epochs=4",), device="cuda", step="graph")
    seed_everything(0)
    used = []
    for _ in range(3):
        parts.strategy.train(parts.streams.train[0], eval_streams=[])
        torch.cuda.empty_cache()
        used.append(torch.cuda.memory_allocated())
    assert used[2] <= used[1] * 1.01


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", TRAINED)
def test_a_cuda_graph_and_eager_agree(strategy, data, tmp_path):
    """Without noise, which a graph may draw in a different order."""
    settings = (*SETTINGS, "network.dropout=0", "network.jitter_scale=0")
    found = {}
    for how in ("eager", "auto"):
        _, parts = assembled(
            strategy, data, tmp_path, settings=settings, device="cuda", precision="fp32", step=how
        )
        learner = parts.strategy
        for number, experience in enumerate(parts.streams.train):
            seed_everything(number)
            learner.train(experience, eval_streams=[])
        found[how] = learner.model.state_dict()
    for name, value in found["eager"].items():
        torch.testing.assert_close(found["auto"][name], value, rtol=1e-3, atol=1e-4, msg=name)
