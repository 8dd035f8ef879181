"""``run --logger``: everything is logged, no log is reachable by a strategy, and no number changes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from resuming import TABLES, Killed, interruption
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import SETTINGS, assembled, tiny_plan, tiny_run

from iufbench.cli.main import main
from iufbench.engine import runner
from iufbench.evaluation.loggers import WandBLogger, check_names
from iufbench.reporting.store import load_run
from iufbench.support.errors import InputError
from iufbench.support.progress import Progress

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def logged(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def execute(plan, **more):
    return runner.execute(plan, Progress(-1), loggers=("tensorboard",), **more)


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    return tiny_run("replay", data, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def with_log(data, tmp_path_factory):
    return execute(tiny_plan("replay", data, tmp_path_factory.mktemp("logged")))


def test_a_log_changes_no_number(plain, with_log):
    for name in TABLES:
        assert (plain.path / name).read_bytes() == (with_log / name).read_bytes()


def test_tensorboard_has_curves_values_matrix_and_heat_maps(plain, with_log):
    events = logged(with_log)
    for name in ("loss", "reconstruction", "lr", "images_per_s"):
        assert len(events.Scalars(f"{name}/train_phase/train_stream")) == 4  # two epochs, twice
    matrix = plain.matrix("image")
    for o, name in enumerate(plain.objects):
        shown = [e.value for e in events.Scalars(f"image_auroc/eval_phase/test_stream/{name}")]
        assert shown == pytest.approx([v for v, seen in zip(matrix.values[:, o], matrix.seen[:, o]) if seen])
        assert events.Images(f"heat_maps/eval_phase/test_stream/{name}")[0].width == 3 * 224
    summary = plain.info["summary"]["image"] if isinstance(plain.info, dict) else plain.info.summary["image"]
    for name in ("acc", "fm"):
        last = events.Scalars(f"image_auroc_{name}/eval_phase/test_stream")[-1].value
        assert last == pytest.approx(summary[name], rel=1e-6)
    assert len(events.Images("image_auroc_matrix/eval_phase/test_stream")) == 2


def test_a_killed_run_continues_its_log(plain, data, tmp_path, monkeypatch):
    plan = tiny_plan("replay", data, tmp_path)
    with interruption(monkeypatch, 1, 2), pytest.raises(Killed):
        execute(plan, checkpoint_epochs=1)
    run = execute(plan)
    for name in TABLES:
        assert (plain.path / name).read_bytes() == (run / name).read_bytes()
    events = logged(run)
    steps = [e.step for e in events.Scalars("loss/train_phase/train_stream")]
    assert len(steps) == 4 and steps == sorted(set(steps))
    acc = events.Scalars("image_auroc_acc/eval_phase/test_stream")[-1].value
    summary = load_run(run).info["summary"]["image"]
    assert acc == pytest.approx(summary["acc"], rel=1e-6)  # with the row from before the kill
    execute(plan, restart=True)
    assert len(logged(run).Scalars("loss/train_phase/train_stream")) == 4


def test_the_command_line_knows_text_and_wandb(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = [part for s in SETTINGS for part in ("--set", s)] + ["--logger", "text", "--logger", "wandb"]
    arguments = ["run", "--protocol", "visa_2_1", "--strategy", "patchcore", "--data-root", data, "--results",
                 tmp_path, "--device", "cpu", "-q", *settings]  # fmt: skip
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    assert "image_auroc/eval_phase/test_stream/cashew = " in done.stderr
    assert "image_auroc/eval_phase" not in done.stdout
    assert list(tmp_path.rglob("wandb/offline-run-*/*.wandb"))


def test_an_unknown_logger_is_an_input_error():
    with pytest.raises(InputError, match="did you mean 'tensorboard'"):
        check_names(["tensorbord"])


def test_wandb_that_cannot_start_is_one_line(data, tmp_path, monkeypatch):
    def fail(self):
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(WandBLogger, "before_run", fail)
    with pytest.raises(runner.RunError, match=r"^wandb: no network; WANDB_MODE=offline"):
        runner.execute(tiny_plan("patchcore", data, tmp_path), Progress(-1), loggers=("wandb",))


def test_nothing_of_the_log_is_in_a_strategys_reach(data, tmp_path, monkeypatch):
    from reach import reachable

    plan = tiny_plan("uniad", data, tmp_path, ("base.epochs=1", "increment.epochs=1"))
    _, parts = assembled("uniad", data, tmp_path)
    monkeypatch.setattr(runner, "assemble", lambda *_: parts)
    found, looks = [], []

    class Look:
        def look(self, strategy, **kwargs):
            hidden = {id(parts.evaluation): "evaluation", id(parts.evaluation.evaluator): "evaluator"}
            hidden |= {id(x): type(x).__name__ for x in parts.evaluation.evaluator.loggers}
            hidden |= {id(x): type(x).__name__ for x in parts.evaluation.evaluator.metrics}
            looks.append(len(parts.evaluation.evaluator.loggers))
            found.extend(
                hidden[id(t)] for t, _ in reachable([strategy], [self, vars(self)]) if id(t) in hidden
            )
            found.extend(
                t for t, _ in reachable([strategy], [self]) if isinstance(t, str) and str(tmp_path) in t
            )

        before_training_epoch = after_training_exp = before_eval_exp = after_eval_iteration = look

    parts.strategy.plugins.insert(0, Look())
    execute(plan)
    assert found == [] and len(looks) >= 8 and set(looks) == {1}
