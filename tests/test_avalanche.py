"""Benchmarks, strategies and plugins without the harness: the plain loop of Avalanche's documentation."""

from __future__ import annotations

import inspect
import io
from pathlib import Path

import avalanche.training.plugins as stock_plugins
import numpy as np
import pytest
import torch
from avalanche.core import BasePlugin
from avalanche.evaluation.metrics import MAC_metrics, loss_metrics, ram_usage_metrics, timing_metrics
from avalanche.logging import CSVLogger, InteractiveLogger, TensorboardLogger, TextLogger
from avalanche.training.plugins import (
    EarlyStoppingPlugin,
    EvaluationPlugin,
    FromScratchTrainingPlugin,
    LRSchedulerPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)
from tiny import tiny_run, tiny_settings

import iufbench
from iufbench.cards.registry import card_paths
from iufbench.data.resident import UNKNOWN_OBJECT
from iufbench.evaluation.loggers import WandBLogger
from iufbench.learning import stock
from iufbench.models.uniad import UniAD
from iufbench.support.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = sorted(card_paths("strategy"))
LOSS = "loss/train_phase/train_stream"


def benchmark_of(data, strategy="uniad", protocol="visa_2_1", **more):
    return iufbench.make_benchmark(
        protocol, data_root=data, strategy=strategy, preset="quick", image_size=64, device="cpu", **more
    )


@pytest.fixture(scope="module")
def shared(data):
    """One benchmark for all tests that train nothing else on it; one thread, as in tiny runs."""
    torch.set_num_threads(1)
    return benchmark_of(data)


def settings_of(strategy):
    return [s for s in tiny_settings(strategy) if not s.startswith("image_size")]


def strategy_on(benchmark, strategy="uniad", settings=(), **more):
    return iufbench.make_strategy(strategy, benchmark, settings=[*settings_of(strategy), *settings], **more)


def weights(strategy):
    return torch.cat([p.detach().flatten() for p in strategy.model.parameters()])


def loop(benchmark, strategy):
    """Avalanche's loop; the values of each evaluation."""
    found = []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        found.append(strategy.eval(benchmark.test_stream))
    return found


# The benchmark -----------------------------------------------------------------------------------------


def test_streams_can_be_walked_and_hide_object_ids_at_test(shared):
    train, test = list(shared.train_stream), list(shared.test_stream)
    assert [e.current_experience for e in train] == [0, 1]
    assert [e.classes_in_this_experience for e in train] == [[0, 1], [2]]
    assert [e.current_experience for e in test] == [0, 1, 2]
    assert [e.classes_in_this_experience for e in test] == [[], [], []]
    assert {tuple(e.task_labels) for e in (*train, *test)} == {(0,)}
    assert shared.objects == ("candle", "capsules", "cashew")
    assert [e.truth.object for e in test] == list(shared.objects)
    assert [e.truth.introduced for e in test] == [0, 0, 1]
    assert test[0].resident.objects.unique().tolist() == [UNKNOWN_OBJECT]
    assert train[0].origin_stream.benchmark is shared and len(shared.test_stream) == 3
    assert [e.current_experience for e in shared.train_stream[1:]] == [1]
    x, y, _, _, task = train[1].dataset[0]
    assert x.shape == train[1].resident.features.shape[1:] and (y, task) == (2, 0)


def test_object_ids_at_test_are_there_when_asked_for(data):
    told = benchmark_of(data, object_ids_at_test=True)
    assert [e.classes_in_this_experience for e in told.test_stream] == [[0], [1], [2]]
    assert [e.resident.objects.unique().tolist() for e in told.test_stream] == [[0], [1], [2]]


def test_synthetic_data_are_an_option_not_a_fallback(tmp_path, monkeypatch):
    monkeypatch.delenv("IUFBENCH_DATA", raising=False)
    with pytest.raises(InputError):
        iufbench.make_benchmark("visa_2_1")
    with pytest.raises(InputError, match="cannot be given together"):
        iufbench.make_benchmark("visa_2_1", synthetic=True, data_root=tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda b, data: iufbench.make_benchmark("visa_8_1x5", data_root=data), "objects"),
        (lambda b, data: iufbench.make_benchmark("visa8", data_root=data), "unknown protocol 'visa8'"),
        (lambda b, data: iufbench.make_strategy("iuff", b), "did you mean 'iuf'"),
        (lambda b, data: iufbench.make_strategy("iuf", [1]), "make_benchmark"),
        (lambda b, data: iufbench.make_strategy("joint", b), r"make_benchmark\('visa_2_1', strategy='joint'"),
        (lambda b, data: iufbench.make_strategy("patchcore_oracle", b), "object_ids_at_test=True"),
        (lambda b, data: strategy_on(b).eval(b.test_stream), "eval before train"),
        (lambda b, data: strategy_on(b, settings=["base.epoch=1"]), "base.epoch"),
        (lambda b, data: iufbench.anomaly_metrics(image=("aurok",)), "did you mean 'auroc'"),
        (lambda b, data: iufbench.anomaly_metrics(pixel=("aupro",)), "unknown pixel metric 'aupro'"),
    ],
)
def test_wrong_use_is_an_input_error_with_a_suggestion(wrong, message, shared, data):
    with pytest.raises(InputError, match=message):
        wrong(shared, data)


def test_a_strategy_from_a_benchmark_of_another_size_is_refused(shared, data):
    larger = iufbench.make_benchmark("visa_2_1", data_root=data, preset="quick", image_size=96, device="cpu")
    strategy = strategy_on(shared)
    with pytest.raises(InputError, match=r"created for features of shape .*make_strategy with the benchmark"):
        strategy.train(larger.train_stream[0])
    strategy.train(shared.train_stream[0])
    with pytest.raises(InputError, match="created for features of shape"):
        strategy.eval(larger.test_stream)


# The loop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_plain_loop_runs_every_strategy(name, shared, data):
    short = ["base.epochs=1", "increment.epochs=1"]
    try:
        benchmark, strategy = shared, strategy_on(shared, name, short)
    except InputError:  # it takes another stream, object ids at test, or another backbone
        benchmark = benchmark_of(data, name)
        strategy = strategy_on(benchmark, name, short)
    found = loop(benchmark, strategy)
    assert len(found) == len(benchmark.train_stream)
    for object in benchmark.objects:
        value = found[-1][f"image_auroc/eval_phase/test_stream/{object}"]
        assert 0 <= value <= 1
    assert 0 <= found[-1]["pixel_aupro_30_acc/eval_phase/test_stream"] <= 1


def test_the_plain_loop_gives_the_numbers_of_a_run(data, tmp_path):
    name = "iuf"
    run = tiny_run(name, data, tmp_path, preset="quick", eval_unseen=True)
    benchmark = benchmark_of(data, name)
    for t, found in enumerate(loop(benchmark, strategy_on(benchmark, name))):
        for level in ("image", "pixel"):
            expected = dict(zip(run.objects, run.matrix(level).values[t]))
            for object, value in expected.items():
                assert found[f"{level}_auroc/eval_phase/test_stream/{object}"] == value


def test_the_class_takes_what_every_avalanche_strategy_takes(shared):
    from iufbench.strategies.uniad import UniAD as Strategy

    context = shared.context("uniad", settings=settings_of("uniad"))
    model = UniAD(
        channels=context.channels, feature_size=context.feature_size, hidden=16, heads=2, feedforward=16,
        encoder_layers=1, decoder_layers=1, standardise=True,
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    strategy = Strategy(
        context=context, model=model, optimizer=optimizer, train_mb_size=5, train_epochs=1, eval_mb_size=3
    )
    sizes: dict[bool, list[int]] = {True: [], False: []}

    class Watch(stock_plugins.SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            sizes[True].append(len(strategy.mb_x))

        def after_eval_iteration(self, strategy, **kwargs):
            sizes[False].append(len(strategy.mb_x))

    strategy.plugins.insert(0, Watch())
    for experience in shared.train_stream:
        strategy.train(experience)
        assert strategy.optimizer is optimizer and optimizer.param_groups[0]["lr"] == 1e-3
    strategy.eval(shared.test_stream[0])
    assert strategy.model is model
    assert sizes == {True: [5, 5, 2, 5, 1], False: [3, 3, 1]}


# One optimiser -----------------------------------------------------------------------------------------


def test_a_strategy_keeps_its_optimiser_object_and_new_parameters_join_it(data):
    """The released update takes AdamW for the base and SGD in increments, and its classifier grows."""
    benchmark = benchmark_of(data, "iuf_released_update")
    strategy = strategy_on(benchmark, "iuf_released_update")
    optimizer, seen = strategy.optimizer, []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        assert strategy.optimizer is optimizer
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in strategy.model.parameters() if p.requires_grad}
        seen.append("betas" in optimizer.param_groups[0])
    assert seen == [True, False]


def test_a_given_optimiser_starts_every_experience_without_state(shared):
    strategy = strategy_on(shared)
    given = torch.optim.Adam(strategy.model.parameters(), lr=1e-4)
    strategy.optimizer, steps = given, []

    class Watch(stock_plugins.SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            steps.append(len(strategy.optimizer.state))

    strategy.plugins.insert(0, Watch())
    loop(shared, strategy)
    assert strategy.optimizer is given and steps == [0, 0] and given.state


# Metrics -----------------------------------------------------------------------------------------------


def test_metrics_are_emitted_per_object_as_means_and_as_a_matrix(shared):
    values, matrix = iufbench.anomaly_metrics(image=("auroc",), pixel=("aupro_30", "aupimo"))
    evaluator = EvaluationPlugin(values, matrix, loggers=[TextLogger(io.StringIO())])
    found = loop(shared, strategy_on(shared, evaluator=evaluator))
    names = [
        f"{m}/eval_phase/test_stream/{o}" for m in ("image_auroc", "pixel_aupro_30") for o in shared.objects
    ]
    assert set(names) <= set(found[-1])
    R = matrix.result()["image_auroc"]
    assert R.shape == (2, 3) and matrix.objects == list(shared.objects)
    for t, last in enumerate(found):
        expected = [last[f"image_auroc/eval_phase/test_stream/{o}"] for o in shared.objects]
        assert R[t].tolist() == expected
        assert last["image_auroc_mean/eval_phase/test_stream"] == pytest.approx(np.mean(expected))
    end = found[-1]
    base, final = R[0, :2].mean(), R[1].mean()
    assert end["image_auroc_acc/eval_phase/test_stream"] == pytest.approx((base + final) / 2)
    assert end["image_auroc_fm/eval_phase/test_stream"] == pytest.approx(base - final)
    assert end["image_auroc_acc_final/eval_phase/test_stream"] == pytest.approx(final)
    assert end["image_auroc_fm_final/eval_phase/test_stream"] == pytest.approx((R[0, :2] - R[1, :2]).mean())
    assert not any("pixel_auroc" in name for name in end)


def test_an_evaluation_inside_an_experience_adds_no_row_to_the_matrix(shared):
    evaluator = EvaluationPlugin(iufbench.anomaly_metrics(pixel=()), loggers=[TextLogger(io.StringIO())])
    strategy = strategy_on(shared, evaluator=evaluator, eval_every=1)
    for experience in shared.train_stream:
        strategy.train(experience, eval_streams=[shared.test_stream])
        strategy.eval(shared.test_stream)
    assert len(evaluator.all_metric_results["image_auroc_mean/eval_phase/test_stream"][0]) > 5
    R = evaluator.metrics[-1].result()["image_auroc"]
    assert R.shape == (2, 3) and not np.isnan(R).any()
    assert R[1].tolist() == [r.value for r in evaluator.metrics[0].rows.metrics if r.metric == "auroc"]


def test_stock_loggers_take_the_values(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    text = io.StringIO()
    loggers = [
        TextLogger(text), InteractiveLogger(), CSVLogger(str(tmp_path / "csv")),
        TensorboardLogger(str(tmp_path / "tb")),
        WandBLogger(project_name="test", run_name="test", dir=str(tmp_path)),
    ]  # fmt: skip
    loop(shared, strategy_on(shared, loggers=loggers, settings=["base.epochs=1", "increment.epochs=1"]))
    loggers[-1].wandb.finish()
    loggers[2].close()
    loggers[3].writer.flush()
    for name in ("image_auroc/eval_phase/test_stream/cashew", "image_auroc_fm/eval_phase", "lr/train_phase"):
        assert name in text.getvalue()
    assert "image_auroc_mean/eval_phase/test_stream" in capsys.readouterr().out
    rows = (tmp_path / "csv/eval_results.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 3  # a line for every test experience; it knows no other metrics
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert {"image_auroc_acc/eval_phase/test_stream", LOSS} <= set(events.Tags()["scalars"])
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


# Stock plugins -----------------------------------------------------------------------------------------


def test_every_stock_plugin_is_in_the_table_of_the_docs():
    there = {
        name
        for name, kind in vars(stock_plugins).items()
        if inspect.isclass(kind) and issubclass(kind, BasePlugin) and name != "SupervisedPlugin"
    }
    assert set(stock.STOCK) == there
    assert {n for s in stock.STOCK.values() for n in s.instead} <= set(STRATEGIES)
    assert stock.table() in (ROOT / "docs/avalanche.md").read_text()


REFUSED = [name for name, known in stock.STOCK.items() if not known.works]


@pytest.fixture(scope="module")
def attached_to(shared):
    return strategy_on(shared)


@pytest.mark.parametrize("name", REFUSED)
def test_a_plugin_for_classification_is_refused_and_ours_is_named(name, shared, attached_to):
    kind = getattr(stock_plugins, name)
    plugin = kind.__new__(kind)  # refused whatever it was made with
    attached_to.plugins.insert(0, plugin)
    with pytest.raises(InputError, match=f"{name} does not work") as caught:
        attached_to.train(shared.train_stream[0])
    attached_to.plugins.remove(plugin)
    assert all(f"'{ours}'" in str(caught.value) for ours in stock.STOCK[name].instead)


def test_a_plugin_is_refused_when_the_strategy_is_made(shared):
    with pytest.raises(InputError, match=r"LwFPlugin does not work.*'lwf'"):
        strategy_on(shared, plugins=[stock_plugins.LwFPlugin()])


def test_stock_synaptic_intelligence_has_no_effect(shared):
    """The reason for its rejection: with any strength, the weights are the same as without it."""

    class Attached(SynapticIntelligencePlugin):
        pass

    plain, held = strategy_on(shared), strategy_on(shared, plugins=[Attached(1e12)])
    for strategy in (plain, held):
        strategy.train(shared.train_stream)
    assert torch.equal(weights(plain), weights(held))


def test_memory_banks_take_no_plugins_of_training(shared):
    with pytest.raises(InputError, match="ReplayPlugin: PatchCore trains no network"):
        strategy_on(shared, "patchcore", plugins=[ReplayPlugin(mem_size=4)])


@pytest.mark.parametrize("name", ["uniad", "iuf"])
def test_a_scheduler_takes_the_place_of_the_cards(name, data):
    benchmark = benchmark_of(data, name)
    strategy = strategy_on(benchmark, name, settings=["increment.lr=0.01"])
    start = strategy.optimizer.param_groups[0]["lr"]
    scheduler = torch.optim.lr_scheduler.StepLR(strategy.optimizer, step_size=1, gamma=0.5)
    strategy.plugins.insert(0, LRSchedulerPlugin(scheduler))
    for experience in benchmark.train_stream:
        strategy.train(experience)
    rates = [row["lr"] for row in strategy.training_log]
    assert rates == pytest.approx([start, start / 2, 0.01, 0.005])


def test_a_scheduler_of_another_optimiser_is_refused(shared):
    strategy = strategy_on(shared)
    other = torch.optim.SGD(strategy.model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(other, step_size=1)
    strategy.plugins.insert(0, LRSchedulerPlugin(scheduler))
    with pytest.raises(InputError, match=r"strategy\.optimizer"):
        strategy.train(shared.train_stream[0])


def test_early_stopping_stops_on_a_metric_of_ours(shared):
    plugin = EarlyStoppingPlugin(1, "test_stream", metric_name="image_auroc_mean", mode="min", margin=1.0)
    strategy = strategy_on(shared, plugins=[plugin], train_epochs=6, eval_every=1)
    epochs = []
    strategy.plugins.insert(0, Epochs(epochs))
    strategy.train(shared.train_stream[0], eval_streams=[shared.test_stream])
    assert 1 <= len(epochs) < 6  # a margin of 1 is never reached


class Epochs(stock_plugins.SupervisedPlugin):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def after_training_epoch(self, strategy, **kwargs):
        self.seen.append(strategy.clock.train_exp_epochs)


@pytest.mark.parametrize("name", ["uniad", "iuf"])
def test_stock_replay_shows_old_images_again(name, data):
    benchmark = benchmark_of(data, name)
    strategy = strategy_on(benchmark, name, plugins=[ReplayPlugin(mem_size=6)])
    objects = []

    class Watch(stock_plugins.SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            objects.append(set(strategy.mbatch.y.tolist()))

    strategy.plugins.insert(0, Watch())
    for experience in benchmark.train_stream:
        objects.clear()
        strategy.train(experience)
    assert all(2 in seen and seen & {0, 1} for seen in objects)


def test_from_scratch_training_starts_from_the_first_weights(shared):
    strategy = strategy_on(shared, settings=["increment.lr=1e-12"], plugins=[FromScratchTrainingPlugin()])
    first = weights(strategy)
    strategy.train(shared.train_stream[0])
    moved = (weights(strategy) - first).abs().max()
    strategy.train(shared.train_stream[1])
    assert (weights(strategy) - first).abs().max() < 1e-6 < moved


def test_stock_metrics_of_loss_time_memory_and_operations(shared):
    evaluator = EvaluationPlugin(
        loss_metrics(epoch=True, experience=True), timing_metrics(epoch=True), MAC_metrics(epoch=True),
        ram_usage_metrics(every=0.1, epoch=True), loggers=[TextLogger(io.StringIO())],
    )  # fmt: skip
    strategy = strategy_on(shared, evaluator=evaluator)
    strategy.train(shared.train_stream[0])
    found = strategy.eval(shared.test_stream)
    row = strategy.training_log[-1]
    assert found["Loss_Epoch/train_phase/train_stream/Task000"] == pytest.approx(row["loss"], rel=1e-5)
    for object in range(3):
        assert found[f"Loss_Exp/eval_phase/test_stream/Task000/Exp00{object}"] > 0
    assert any(key.startswith("MaxRAMUsage_Epoch") for key in found)  # 0 for an epoch between two samples
    for name in ("Time_Epoch", "MAC_Epoch"):
        assert found[next(key for key in found if key.startswith(name))] > 0
