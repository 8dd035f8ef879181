"""Runs with decision thresholds: what they are calibrated on, what is measured at them, and resuming."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fake_runs import make_run
from resuming import Killed, assert_same_run, interruption
from scipy.stats import binom
from sklearn.metrics import f1_score, roc_auc_score
from tiny import tiny_plan, tiny_run

from iufbench.cli.main import main
from iufbench.data.calibration import set_aside
from iufbench.data.samples import DataSet, Sample
from iufbench.engine.describe import describe_results, explain_metric
from iufbench.engine.predict import predict
from iufbench.reporting.collect import recompute
from iufbench.reporting.drift import by_object, drifts, guaranteed, pooled
from iufbench.reporting.figures.alarms import alarm_figure
from iufbench.reporting.groups import group_runs
from iufbench.reporting.literature import published
from iufbench.reporting.store import load_run
from iufbench.reporting.tables.render import render
from iufbench.reporting.tables.thresholds import threshold_tables
from iufbench.support.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
RULE = "quantile 0.7"  # of five images: one is above


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """A finished run of fine-tuning, whose scores drift; read only."""
    return tiny_run("finetune", data, tmp_path_factory.mktemp("made"), threshold=RULE)


@pytest.fixture(scope="module")
def calibration(made):
    return pd.read_csv(made.path / "calibration.csv.gz")


def test_calibration_images_are_normal_and_neither_trained_on_nor_tested(made, data, calibration, tmp_path):
    plan = tiny_plan("finetune", data, tmp_path, threshold=RULE)
    for name, rows in calibration.groupby("object"):
        aside = set(rows["image"])
        trained = {s.image.relative_to(data).as_posix() for s in plan.dataset.training((name,))}
        of_object = made.scores()
        tested = set(of_object.loc[of_object["object"] == name, "image"])
        assert len(aside) == 5 and len(trained) == 1
        assert not aside & trained and not aside & tested
        assert made.record.dataset.counts[name] == {"train": 1, "test": 7, "calibration": 5}
    assert plan.train_counts == [2, 1]


def test_runs_without_thresholds_keep_their_recipe_and_their_images(data, tmp_path):
    plain, asked, other = (
        tiny_plan("uniad", data, tmp_path, threshold=rule) for rule in (None, "0.95", "quantile 0.950")
    )
    share = tiny_plan("uniad", data, tmp_path, threshold="0.95", calibration=0.2)
    seed = tiny_plan("uniad", data, tmp_path, threshold="0.95", seed=3)
    assert plain.train_counts == [12, 6]
    assert asked.recipe_hash == other.recipe_hash
    assert len({plain.recipe_hash, asked.recipe_hash, share.recipe_hash}) == 3
    assert set(seed.dataset.calibration) != set(asked.dataset.calibration)
    assert plain.dataset.fingerprint() == asked.dataset.fingerprint(), "the same data"


def at(scores, level):
    alarm, defective = (scores["score"] > level).to_numpy(), (scores["label"] == 1).to_numpy()
    return alarm[defective].mean(), alarm[~defective].mean(), f1_score(defective, alarm)


def test_metrics_are_those_of_the_recorded_scores_at_the_thresholds(made, calibration):
    """Recomputed with pandas from the files alone; q 0.7 of five scores is the fourth."""
    scores, metrics = made.scores(), made.metrics[made.metrics["level"] == "image"]
    metrics = metrics.set_index(["experience", "object", "metric"])["value"]
    drifted = 0
    for (t, name), rows in scores.groupby(["experience", "object"]):
        cells = calibration[(calibration["object"] == name)]
        first = cells["experience"].min()
        own, frozen = (sorted(cells.loc[cells["experience"] == e, "score"])[3] for e in (t, first))
        drifted += own != frozen
        for when, level in (("frozen", frozen), ("own", own)):
            recall, false_alarm, f1 = at(rows, level)
            assert metrics[t, name, f"recall_{when}"] == pytest.approx(recall)
            assert metrics[t, name, f"false_alarm_{when}"] == pytest.approx(false_alarm)
            if when == "frozen":
                assert metrics[t, name, "f1_frozen"] == pytest.approx(f1)
        if t == first:
            assert metrics[t, name, "f1_transferred"] == metrics[t, name, "f1_max"]
        stored = made.record.thresholds.objects[name]
        assert stored.frozen_image == pytest.approx(frozen, abs=1e-15) and stored.images == 5
        if t == 1:
            assert stored.own_image == pytest.approx(own, abs=1e-15)
    assert drifted == 2, "fine-tuning moves the scores of both objects of the base"
    assert made.record.thresholds.rule == RULE
    last = calibration[calibration["experience"] == 1]
    assert made.record.thresholds.pooled_image == pytest.approx(sorted(last["score"])[10])  # 0.7 * 15 = 10.5


def test_pixel_thresholds_and_values_come_from_the_maps(made, data, calibration, tmp_path):
    """seg_f1 at mean + 3 sd of the calibration maps, from the maps that `evaluate --save-maps` gives."""
    place = tmp_path / "run"
    shutil.copytree(made.path, place)
    done = CliRunner().invoke(main, ["evaluate", str(place), "--save-maps", "-q"])
    assert done.exit_code == 0, done.output
    rows = calibration[(calibration["experience"] == 1) & (calibration["object"] == "cashew")]
    pooled = np.sqrt(
        (rows["pixel_sd"] ** 2 + rows["pixel_mean"] ** 2).mean() - rows["pixel_mean"].mean() ** 2
    )
    level = rows["pixel_mean"].mean() + 3 * pooled
    assert made.record.thresholds.objects["cashew"].own_pixel == pytest.approx(level)
    with np.load(next(place.rglob("maps/**/*cashew*.npz"))) as kept:
        maps = kept["maps"].astype(np.float64)  # rounded to float16
    share = (maps > level).mean()
    metrics = made.metrics.set_index(["experience", "object", "metric"])["value"]
    f1, iou = metrics[1, "cashew", "seg_f1_own"], metrics[1, "cashew", "iou_own"]
    assert 0 <= iou <= f1 <= 1 and f1 == pytest.approx(2 * iou / (1 + iou))
    assert share < 0.5


def test_drift_is_what_the_files_say_with_the_guarantee_beside_it(made, calibration):
    """False alarms of the objects of the base, from scores and calibration scores; the last has none."""
    scores, base = made.scores(), made.experiences[0]
    rates = {}
    for name in base:
        cells = calibration[(calibration["object"] == name) & (calibration["experience"] == 0)]
        level = sorted(cells["score"])[3]
        of_object = scores[scores["object"] == name]
        rates[name] = [at(of_object[of_object["experience"] == t], level)[:2] for t in (0, 1)]
    found = drifts(made)
    recall, alarms = (np.mean([last[k] - first[k] for first, last in rates.values()]) for k in (0, 1))
    assert found["recall_drift"] == pytest.approx(recall)
    assert found["false_alarm_drift"] == pytest.approx(alarms)
    worst = max(last[1] - first[1] for first, last in rates.values())
    assert found["false_alarm_drift_worst"] == pytest.approx(worst)
    rows = by_object(made).set_index("object")
    assert rows.loc[base[0], "false_alarm_frozen_final"] == pytest.approx(rates[base[0]][1][1])
    assert np.isnan(rows.loc["cashew", "false_alarm_drift"])
    promise = guaranteed(made)["cashew"]  # the 4th of 5: P(Beta(2, 4) <= p) = P(Binomial(5, p) >= 2)
    assert 1 - binom.cdf(1, 5, promise) == pytest.approx(0.95)
    text = explain_metric("False-alarm drift", made.path)
    assert f"at most {promise:.3f} guaranteed by 5 calibration images" in text
    assert text.endswith(f"false_alarm_drift: {alarms:.3f}")


def test_rates_of_errors_have_means_but_no_forgetting(made):
    """FM is a drop: of a rate that rises while a model forgets it would be negative."""
    found = made.summary("image", "false_alarm_frozen")
    assert set(found) == {"acc", "acc_final", "new_object", "pyclad_average"}
    rates = made.matrix("image", "false_alarm_frozen").values[-1]
    assert found["acc_final"] == pytest.approx(rates.mean())
    (group,) = group_runs([made])
    assert np.isnan(group.values("image", "fpr_at_recall_95", "fm_final")).all()
    assert np.isfinite(group.values("image", "recall_frozen", "fm_final")).all()
    text = explain_metric("fm_final", made.path)
    assert "(recall (frozen))" in text and "(false alarms" not in text


def test_the_pooled_auroc_is_that_of_all_last_scores_together(made):
    last = made.scores()[made.scores()["experience"] == 1]
    expected = roc_auc_score(last["label"], last["score"])
    auroc, gap = pooled(made)
    assert auroc == pytest.approx(expected)
    assert gap == pytest.approx(made.matrix("image").values[-1].mean() - expected)
    assert f"pooled {expected:.3f}" in explain_metric("auroc_pooled", made.path)


def test_tables_show_thresholds_and_say_where_there_are_none(made, tmp_path):
    whole, objects = threshold_tables(group_runs([made]), published(), {})
    titles = [column.title for column in objects.columns]
    assert [row.labels[0] for row in objects.rows] == list(made.objects)
    oracle = objects.rows[0].cells[titles.index("final, transferred (oracle)")]
    expected = made.matrix("image", "f1_transferred").values[-1, 0]
    assert oracle.value == pytest.approx(100 * expected)
    assert objects.rows[0].cells[titles.index("images")].value == 5
    assert RULE in render(whole, "md") and f"{100 * drifts(made)['recall_drift']:.1f}" in render(whole, "csv")
    bare = load_run(make_run(tmp_path, scores=True))
    (found,) = threshold_tables(group_runs([bare]), published(), {})
    texts = [cell.text for cell in found.rows[0].cells]
    assert texts[:6] == ["none", "–", "–", "–", "–", "–"] and "made without --threshold" in found.caption
    assert 50 < found.rows[0].cells[7].value < 100
    (unknown,) = threshold_tables(group_runs([load_run(make_run(tmp_path / "x"))]), published(), {})
    assert [cell.text for cell in unknown.rows[0].cells[6:]] == ["undefined"] * 3
    assert explain_metric("recall_drift", bare.path).endswith("the run was made without --threshold")


def test_the_figure_follows_every_object_from_when_it_was_learnt(tmp_path):
    """Invented rates of VisA 8-4, two seeds: a panel per object of the base, the promise of its n images."""
    rates = np.linspace(0, 0.9, 24).reshape(2, 12)
    runs = [
        make_run(tmp_path, "visa_8_4", "replay", seed, alarms=rates * (1 - 0.5 * seed)) for seed in (0, 1)
    ]
    runs.append(make_run(tmp_path, "visa_8_4", "iuf"))
    figure = alarm_figure(group_runs(map(load_run, runs)), published())
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == list(load_run(runs[0]).objects[:8])
    lines = {line.get_label(): line for line in panels[3].lines}
    assert set(lines) == {"Replay", "guaranteed at 95 % confidence", "nominal rate"}
    assert lines["Replay"].get_ydata() == pytest.approx(75 * rates[:, 3])
    (promise,) = set(lines["guaranteed at 95 % confidence"].get_ydata())  # 4th object: 76th of 80 images
    assert 1 - binom.cdf(4, 80, promise / 100) == pytest.approx(0.95)
    assert "made without --threshold, not drawn: IUF" in figure.legends[0].get_title().get_text()


def test_good_images_alone_give_a_threshold_and_decisions(data, tmp_path):
    """A folder <object>/good: AUROC is undefined and said to be, nothing else is missing."""
    good = sorted((data / "candle/Data/Images/Normal").iterdir())
    for image in good:
        (tmp_path / "parts/candle/good").mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "parts/candle/good")
    request = {"protocol": "parts_1_0", "preset": "quick"}
    with pytest.raises(InputError, match=r"no object has both .* add --threshold 'quantile 0.95'"):
        tiny_plan("patchcore", tmp_path / "parts", tmp_path, **request)
    run = tiny_run("patchcore", tmp_path / "parts", tmp_path / "r", threshold=RULE, **request)
    line = "candle: no defective test images: image AUROC is undefined; image ACC and FM stay empty"
    assert run.record.warnings == [line]
    text = describe_results(run)
    assert text.count(line) == 1 and "0      undefined  undefined" in text
    rates = run.metrics.set_index("metric")["value"]
    assert 0 <= rates["false_alarm_frozen"] <= 1 and np.isnan(rates[["auroc", "recall_frozen"]]).all()
    bad = next((data / "candle/Data/Images/Anomaly").iterdir())
    (found,) = predict(run, [bad], object="candle")
    level = run.record.thresholds.objects["candle"].frozen_image
    assert found.threshold == level and found.decision == ("defective" if found.score > level else "good")
    (whole, objects) = threshold_tables(group_runs([run]), published(), {})
    assert [c.text for c in whole.rows[0].cells[3:]] == ["–", "–", "–", *["undefined"] * 3]
    assert "undefined" in [c.text for c in objects.rows[0].cells]
    assert recompute(run)[1] == [] and CliRunner().invoke(main, ["figures", "--results", str(tmp_path / "r")])


def test_a_run_with_thresholds_is_verified(made):
    done = CliRunner().invoke(main, ["verify", str(made.path), "-q"])
    assert done.exit_code == 0 and done.stdout.splitlines()[-1] == "no difference", done.output


def test_a_changed_calibration_score_is_noticed(made, tmp_path):
    place = tmp_path / "runs" / made.id
    shutil.copytree(made.path, place)
    path = place / "calibration.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    cells = lines[1].split(",")
    lines[1:6] = [",".join([*line.split(",")[:3], "-100.0", *cells[4:]]) for line in lines[1:6]]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    notes = recompute(load_run(place))[1]
    assert any("calibration.csv.gz was changed" in note for note in notes)
    assert any("metrics.csv disagrees" in note and "frozen" in note for note in notes)


def test_a_resumed_run_has_the_thresholds_of_one_that_never_stopped(made, data, tmp_path, monkeypatch):
    with interruption(monkeypatch, experience=1, epoch=1), pytest.raises(Killed):
        tiny_run("finetune", data, tmp_path, threshold=RULE)
    assert not load_run(tiny_plan("finetune", data, tmp_path, threshold=RULE).path).complete
    again = tiny_run("finetune", data, tmp_path, threshold=RULE)
    assert_same_run(made, again)
    assert (made.path / "calibration.csv.gz").read_bytes() == (again.path / "calibration.csv.gz").read_bytes()
    assert made.record.thresholds == again.record.thresholds


def listed(split: str, count: int, name: str = "nut") -> list[Sample]:
    return [Sample(Path(f"/d/{name}/{split}/{k}.png"), name, split, 0) for k in range(count)]


def test_validation_images_are_used_where_the_data_set_has_them():
    samples = [*listed("train", 60), *listed("validation", 6), *listed("train", 60, "bolt")]
    samples += listed("validation", 4, "bolt")  # too few
    dataset = set_aside(
        DataSet("parts", Path("/d"), ("nut", "bolt"), tuple(samples)), ("nut", "bolt"), 0.1, 0
    )
    assert [s.split for s in dataset.calibrating("nut")] == ["validation"] * 6
    assert len(dataset.training(("nut",))) == 60
    assert [s.split for s in dataset.calibrating("bolt")] == ["train"] * 6
    assert len(dataset.training(("bolt",))) == 54
    assert replace(dataset, calibration=()).training(("bolt",)) == listed("train", 60, "bolt")


def test_predictions_decide_at_the_frozen_threshold(made, data, calibration):
    name = made.objects[0]
    images = sorted((data / name).rglob("*.JPG"))[:3] or sorted(data.rglob(f"*{name}*/**/*.JPG"))[:3]
    rows = calibration[(calibration["object"] == name) & (calibration["experience"] == 0)]
    expected = sorted(rows["score"])[3]  # one of five is above
    found = list(predict(made, images, object=name))
    assert [p.threshold for p in found] == pytest.approx([expected] * 3)
    assert [p.decision for p in found] == ["defective" if p.score > expected else "good" for p in found]
    done = CliRunner().invoke(main, ["predict", str(made.path), *map(str, images)])
    unknown = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["threshold"] for row in unknown} == {made.record.thresholds.pooled_image}
    assert "unknown object: the threshold is pooled over all objects" in done.stderr
