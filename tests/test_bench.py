"""``iufbench bench`` and the programs it is compared with: both do the same work."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from recorded import Recorder

from iufbench.bench.latency import stages
from iufbench.bench.learner import build_learner
from iufbench.bench.timing import Spread, ratio, take_turns
from iufbench.cards.datasets import dataset_cards
from iufbench.cli.main import main
from iufbench.engine.predict import Predictor
from iufbench.reporting.figures.build import write_figures
from iufbench.reporting.store import load_run
from iufbench.reporting.tables.build import read_tables
from iufbench.support import energy
from iufbench.support.errors import RunError

sys.path.append(str(Path(__file__).parent / "perf"))
import bare_loop
import bench_against_plain
import bench_gpu
import gpu_step
import plain_released as plain
import precision
import projection

SMALL = ("network.hidden=16", "network.heads=2", "network.feedforward=16", "image_size=64")
QUICK = [word for setting in (*SMALL, "oasa.resolution=8") for word in ("--set", setting)]
ARGUMENTS = ["bench", "--strategy", "iuf", "--repeats", "2", "--batch", "2", *QUICK]


def test_calls_take_turns_after_a_warm_up():
    order = []
    found = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == list("ababab")
    assert len(found["a"].cpu) == len(found["b"].wall) == 2


def test_ratios_are_taken_turn_by_turn():
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == Spread(2.0, 1.0, 3.0, 3)


def test_bench_writes_what_compare_reads(tmp_path):
    out = tmp_path / "a.json"
    done = CliRunner().invoke(main, [*ARGUMENTS, "--stage", "step", "--out", str(out)])
    assert done.exit_code == 0, done.output
    content = json.loads(out.read_text())
    assert [row["item"] for row in content["rows"]] == ["iuf base", "iuf increment"]
    for row in content["rows"]:
        assert row["images"] == 2
        assert 0 < row["cpu_s"]["low"] <= row["cpu_s"]["median"] <= row["cpu_s"]["high"]
    for row in content["rows"]:  # an old file that says half: the new one must look slower
        row["cpu_s"]["median"] /= 1000
    out.write_text(json.dumps(content))
    again = CliRunner().invoke(main, [*ARGUMENTS, "--stage", "step", "--compare", str(out), "--json"])
    assert again.exit_code == 0, again.output
    found = json.loads(again.stdout)
    assert all(entry["cpu"] < 0.1 for entry in found["speedup"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "patchcore", "--stage", "step"], "trains no network"),
        (["--strategy", "nothing", "--stage", "step"], "nothing"),
        (["--compare", "OLD", "--stage", "step"], "measured with preset paper, not quick"),
        (["--compare", "OTHER", "--stage", "step"], "is not a file that"),
    ],
)
def test_wrong_input_costs_one_line(arguments, message, tmp_path):
    (tmp_path / "OLD").write_text(json.dumps({"rows": [], "conditions": {"preset": "paper"}}))
    (tmp_path / "OTHER").write_text("{}")
    arguments = [str(tmp_path / a) if a in ("OLD", "OTHER") else a for a in arguments]
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 2
    assert message in done.output and "Traceback" not in done.output


@pytest.mark.parametrize("name", ["uniad", "iuf_release"])
def test_the_plain_program_computes_what_iufbench_computes(name):
    """Otherwise the timings would be of different work."""
    learner = bench_against_plain.learner_of(name, 2, "quick")
    network = plain.network_for(learner).eval()
    model = learner.strategy.model.eval()
    side = learner.plan.recipe.image_size // 16
    image = torch.randn(3, 3, 2 * side, 2 * side) if network.classifier is not None else None
    features = torch.randn(3, model.channels, side, side)
    ours = model(features, guide=image)
    reconstruction, outputs, logits = network(features, image)
    assert torch.allclose(ours.reconstruction, reconstruction, atol=2e-5, rtol=1e-4)
    for mine, theirs in zip(ours.decoder_features, outputs, strict=True):
        assert torch.allclose(mine, theirs.transpose(0, 1), atol=2e-5, rtol=1e-4)
    if image is not None:
        assert torch.allclose(ours.class_logits, logits, atol=2e-5, rtol=1e-4)


def test_both_sides_of_the_metrics_comparison_agree(monkeypatch):
    monkeypatch.setattr(bench_against_plain, "METRIC_IMAGES", 6)
    ours, theirs = bench_against_plain.our_metrics()(), bench_against_plain.plain_metrics()()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-6), name


def test_the_bare_loop_ends_with_the_harness_weights(monkeypatch):
    """The comparison measures overhead only: both compute the same values, bit for bit."""
    monkeypatch.setattr(bare_loop, "COUNTS", [[6, 6], [6], [6]])
    small = (*SMALL, "oasa.resolution=8", "base.batch_size=4", "increment.batch_size=4")
    harness = bare_loop.train_with_harness(bare_loop.learner(small)).strategy.model.state_dict()
    bare = bare_loop.train_barely(bare_loop.learner(small)).state_dict()
    assert harness.keys() == bare.keys()
    for name, value in harness.items():
        assert torch.equal(value, bare[name]), name


@pytest.mark.slow
def test_the_gpu_program_runs_on_the_cpu(two_objects, tmp_path, monkeypatch):
    """Measurement, comparison and projection are tested without a GPU; here device and CPU are the same."""
    out = tmp_path / "gpu.json"
    settings = [w for s in (*SMALL, "oasa.resolution=8") for w in ("--set", s)]
    common = ["--device", "cpu", "--batch", "2", "--repeats", "1", "--peak-size", "256", "--preset", "quick"]
    asked = []
    monkeypatch.setattr(bench_gpu.api, "run", lambda *a, **k: asked.append(k) or two_objects("uniad"))
    assert bench_gpu.main([*common, "--strategy", "iuf", *settings, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {row["precision"]: row["maps"] == 0 for row in found["agreement"]} == {"fp32": True, "bf16": False}
    assert {row["limit"] for row in found["steps"]} <= {"host", "arithmetic", "memory traffic"}
    assert all(row["flop_per_step"] > 0 and row["share_of_peak"] > 0 for row in found["steps"])
    assert {row["step"] for row in found["steps"]} == {"eager"} and found["skipped"] == []
    assert all(set(row["parts_ms"]) == set(gpu_step.PARTS) for row in found["steps"])
    assert found["run"]["train_images_per_s"] > 0 and found["run"]["kernel_share"] is None
    assert [(k["synthetic"], k["device"]) for k in asked] == [(True, "cpu")]
    table = out.with_suffix(".md").read_text()
    assert "| `iuf` | bf16 | eager |" in table and f"| all | {found['hours']['iuf']:.2f} |" in table
    assert set(found["compression_ms"]) == {"eigenvalues", "products"} and "IUF's compression loss: " in table
    assert len(found["projections"]) == 7
    hours = {row["protocol"]: row["hours"] for row in found["projections"]}
    # 11 base objects of 12 are more than 8 and 4 in one step of the same length: same images in all.
    assert hours["visa_8_4"] == pytest.approx(hours["visa_8_1x4"], rel=0.5)


def test_projected_hours_are_images_over_speeds():
    counts = dataset_cards()["visa"].counts
    train = sum(c["train"] for c in counts.values())
    test = {name: c["test_good"] + c["test_defective"] for name, c in counts.items()}
    shown = sum(test.values()) - test["pipe_fryum"] + sum(test.values())  # eleven objects, then all twelve
    seconds = 1000 * train / 50 + shown / 20 + (train + sum(test.values())) / 5
    found = dict(projection.hours("uniad", {"train": 50, "evaluate": 20, "backbone": 5}))
    assert len(found) == 7 and found["visa_11_1"] == pytest.approx(seconds / 3600)


def test_operations_of_a_captured_step_are_those_of_an_eager_one():
    """Replays are invisible to torch's counter."""
    counts, parts = [], []
    for capture in (None, Recorder()):
        settings = [*SMALL, "base.batch_size=2", "increment.batch_size=2", "network.dropout=0.0"]
        learner = build_learner("uniad", "quick", [[2]], settings=settings)
        learner.strategy.capture = capture
        step = learner.stepper(0)
        for _ in range(4):
            step()
        counts.append(gpu_step.counted(learner.strategy, step))
        parts.append(gpu_step.parts_of(learner.strategy, step, "cpu", repeats=1))
        assert capture is None or capture.replays > 2
    assert counts[0] == counts[1] > 0
    assert set(parts[1]) - set(parts[0]) == {"graph up to the loss", "between", "graph after"}
    assert all(value >= 0 for part in parts for value in part.values())


def test_the_table_of_precisions(tmp_path, capsys, monkeypatch):
    def run(protocol, strategy, seed, precision, **options):
        value = {"fp32": 0.9, "bf16": 0.8}[precision] + 0.01 * seed
        return SimpleNamespace(summary=lambda level, metric: {"acc_final": value})

    given = ["--strategy", "uniad", "--device", "cpu", "--results", str(tmp_path / "r"), "--preset", "quick"]
    nowhere = ["--synthetic-protocol", "none", "--data-root", str(tmp_path), "--protocol", "visa_1_1"]
    assert precision.main([*given, *nowhere]) == 2
    monkeypatch.setattr(precision.api, "run", run)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision.main(given) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "| synthetic | `uniad` | fp32 | 91.00 ± 1.00 | 91.00 ± 1.00 |",
        "| synthetic | `uniad` | bf16 | 81.00 ± 1.00 | 81.00 ± 1.00 |",
    ]


def test_the_gpu_program_says_when_there_is_no_gpu(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert bench_gpu.main([]) == 2
    assert "--device cpu" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["uniad", "iuf_release"])
def test_the_plain_step_starts_from_the_same_loss(name):
    """Its parts for increments (pull, windows, projected step) run and change the weights."""
    learner = bench_against_plain.learner_of(name, 2, "quick")
    network = plain.network_for(learner).train()
    network.jitter = learner.strategy.model.jitter_scale = 0
    training = plain.PlainTraining(network, None, released=name != "uniad", increment=name != "uniad")
    before = network.input_proj.weight.detach().clone()
    data = learner.streams.train[0].resident
    features, image = data.features.float(), None
    if network.classifier is not None:
        mean, std = learner.strategy._pixels
        image = (data.guide.float() / 255 - mean) / std
    ours = learner.strategy.model.train()(features, guide=image)
    expected = (ours.reconstruction - ours.target).square().mean().item()
    if image is not None:
        expected += float(torch.nn.functional.cross_entropy(ours.class_logits, torch.zeros(2).long()))
    images = torch.zeros(2) if image is None else image
    loss = training.step([], images, torch.zeros(2, dtype=torch.int64), features)
    assert loss == pytest.approx(expected, rel=1e-4)  # the released compression loss is 0 here
    again = training.step([], images, torch.zeros(2, dtype=torch.int64), features)
    assert 0 < again < loss
    assert not torch.equal(before, network.input_proj.weight)


def test_both_sides_evaluate_the_same_images():
    assert bench_against_plain.our_evaluation("uniad", 8, "quick")() == 8
    assert bench_against_plain.plain_evaluation("uniad", 8, "quick")() == 8


def test_both_sides_of_the_evaluation_agree(tmp_path):
    learner = bench_against_plain.learner_of("uniad", 1, "quick", objects=2, test=6)
    network = plain.network_for(learner)
    sets = [
        (e.resident.features, None, t.masks.unpacked())
        for e, t in zip(learner.streams.test, learner.evaluation.tests)
    ]
    theirs = plain.evaluate(network, sets, tmp_path)
    ours = learner.evaluator()()
    assert len(theirs) == 3 and len({row.object for row in ours.metrics}) == 3
    for row in ours.metrics:
        value = theirs[int(row.object[-3:])][f"{row.level}_{row.metric}"]
        assert row.value == pytest.approx(value, abs=1e-4), (row.object, row.level, row.metric)


def test_ratios_are_printed_and_written(monkeypatch, tmp_path, capsys):
    class Side:
        def __init__(self, seconds):
            self.seconds = seconds

        def turn(self):
            return self.seconds, 2 * self.seconds, 100.0, None

        def close(self):
            pass

    sides = {"iuf": Side(1.0), "iuf_release": Side(8.0), "plain": Side(16.0)}
    monkeypatch.setattr(bench_against_plain, "sides", lambda what, given: sides)
    monkeypatch.setattr(sys, "argv", ["bench", "iuf", "--out", str(tmp_path / "r.json")])
    bench_against_plain.main()
    out = capsys.readouterr().out
    assert "plain/iuf 16.00" in out and "plain/iuf_release 2.00" in out and "at least 15.0 wanted" in out
    found = json.loads((tmp_path / "r.json").read_text())["results"]
    assert [row["ratio"]["median"] for row in found] == [16.0, 2.0]


def test_latency_of_a_run(two_objects, data, tmp_path):
    """Stages of a single image, stored in the run and shown in the cost table and a figure."""
    made = two_objects("patchcore_per_object")
    place = tmp_path / "results/runs" / made.id
    shutil.copytree(made.path, place)
    done = CliRunner().invoke(
        main, ["bench", "--latency", "--results", str(tmp_path / "results"), "--repeats", "3"]
    )
    assert done.exit_code == 0, done.output
    assert "2 objects" in done.stdout and "GFLOPs" in done.stdout
    found = load_run(place).latency
    assert [point.objects for point in found.points] == [1, 2] and found.threads == 1 and found.repeats == 3
    for point in found.points:
        parts = [getattr(point, name) for name in ("decode", "backbone", "learner")]
        assert all(0 < part.median <= part.p95 for part in parts)
        assert point.total.median >= max(part.median for part in parts)
    # EfficientNet-Lite0 has 407 million multiply-adds at 224 px (timm's table); its last stages are not used.
    whole = 2 * 407e6 * (64 / 224) ** 2
    assert 0.3 * whole < found.flops["backbone"] < whole
    assert (found.energy_j is None) == (
        "cannot" in found.energy or "no " in found.energy or "not" in found.energy
    )
    table = next(t for t in read_tables(tmp_path / "results") if t.name.startswith("costs_"))
    column = next(k for k, c in enumerate(table.columns) if (c.group, c.title) == ("ms per image", "median"))
    assert table.rows[0].cells[column].value == pytest.approx(found.points[-1].total.median)
    files = write_figures(tmp_path / "results", tmp_path / "figures")
    assert any(f.name.startswith("latency_") for f in files)
    (place / "latency.json").write_text('{"format": 1}')
    with pytest.raises(RunError, match=r"latency\.json"):
        load_run(place)


def test_the_timed_stages_give_the_score_of_predict(two_objects, data):
    predictor = Predictor(two_objects("patchcore_per_object"))
    image = data / "candle/Data/Images/Normal/0006.JPG"
    (prediction,) = predictor.predictions([image])
    assert stages(predictor, image)["learner"]() == pytest.approx(prediction.score, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["somewhere"], "timed with --latency only"),
        (["--latency", "--results", "nowhere"], "no finished run"),
    ],
)
def test_latency_needs_runs(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 2 and message in done.stderr and not list(tmp_path.iterdir())


def test_energy_counters_say_why_there_are_none(tmp_path):
    assert energy._rapl(tmp_path) == (None, "no RAPL counters")
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "energy_uj").write_text("2500000")
    (tmp_path / "intel-rapl:0:0").mkdir()
    (tmp_path / "intel-rapl:0:0/energy_uj").write_text("1000000")  # a part of the package, not added
    read, meaning = energy._rapl(tmp_path)
    assert read() == 2.5 and "RAPL" in meaning
