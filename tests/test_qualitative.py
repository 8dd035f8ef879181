"""Figure 3 from real runs: the selected image, the panels' text, and errors."""

from __future__ import annotations

import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fake_runs import make_run
from matplotlib.text import Text
from sklearn.metrics import f1_score, roc_auc_score
from tiny import tiny_run

from iufbench.cli.main import main
from iufbench.reporting.examples import choose, make_example, shown_steps
from iufbench.reporting.figures.qualitative import qualitative_figure, qualitative_figures
from iufbench.reporting.groups import group_runs
from iufbench.reporting.literature import published
from iufbench.reporting.maps import maps_path, read_maps, write_maps
from iufbench.reporting.store import find_runs, load_run
from iufbench.support.errors import RunError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def kept(data, tmp_path_factory):
    """Three runs; fine-tuning and joint training have saved all maps, by the command in the error message."""
    results = tmp_path_factory.mktemp("results")
    tiny_run("finetune", data, results)
    tiny_run("finetune", data, results, seed=1)
    tiny_run("joint", data, results)
    refused = invoke("figures", "--results", results, "--qualitative", "--strategies", "finetune")
    assert refused.exit_code == 2 and refused.stdout == ""
    command = re.search(r"iufbench (evaluate .*)", refused.stderr).group(1)
    assert "/seed0 " in command and "--save-maps" in command
    assert invoke(*shlex.split(command), "--device", "cpu", "-q").exit_code == 0
    (joint,) = results.glob("runs/*/*/joint/*/seed0")
    assert invoke("evaluate", joint, "--save-maps", "--device", "cpu", "-q").exit_code == 0
    return results


@pytest.fixture
def results(kept, tmp_path):
    """A writable copy."""
    return shutil.copytree(kept, tmp_path / "results")


def groups_of(results):
    return group_runs(find_runs(results)[0])


def texts(figure):
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def table(scores, label=1):
    return pd.DataFrame({"image": list("abcde")[: len(scores)], "label": label, "score": scores})


def test_the_rule_by_hand():
    assert choose([table([5.0, 1.0, 3.0, 2.0, 4.0])]) == "c"
    assert choose([table([4.0, 1.0, 3.0, 2.0])]) == "d"  # of two in the middle the lower
    assert choose([table([1.0, 1.0, 1.0])]) == "b"  # by name where all are equal
    # ranks 1 2 3 and 3 1 2: sums 4 3 5, whatever the units
    assert choose([table([0.1, 0.2, 0.3]), table([900.0, 700.0, 800.0])]) == "a"
    with_normal = pd.concat([table([2.0, 1.0, 3.0]), table([9.0] * 5, label=0).tail(2)])
    assert choose([with_normal]) == "a"


def test_long_streams_show_six_experiences(tmp_path):
    run = load_run(make_run(tmp_path, "mvtec_1_1x14"))
    assert shown_steps(run, "bottle") == [0, 3, 6, 8, 11, 14]
    assert shown_steps(run, "wood") == [13, 14]


def test_panels_say_what_the_records_say(kept):
    (group, _) = groups_of(kept)
    run = group.runs[0]
    example = make_example([group], "candle")
    (line,) = example.lines
    assert line.run.id == run.id and [p.experience for p in line.panels] == [0, 1]
    scores = run.scores()
    scores = scores[scores["object"] == "candle"]
    first = scores[scores["experience"] == 0]
    defective = first[first["label"] == 1].sort_values("score")
    assert example.image == defective["image"].iloc[1]  # the lower middle one of four
    for panel in line.panels:
        rows = scores[scores["experience"] == panel.experience]
        labels, values = rows["label"].to_numpy(), rows["score"].to_numpy()
        assert panel.score == float(rows.loc[rows["image"] == example.image, "score"].iloc[0])
        best = max(f1_score(labels, values >= v) for v in values)
        assert f1_score(labels, values >= panel.threshold) == pytest.approx(best)
        assert panel.auroc == pytest.approx(roc_auc_score(labels, values))
    maps = {name: found.astype(np.float32) for name, found in read_maps(run, 0, "candle")}
    usual = np.median([maps[name] for name in first.loc[first["label"] == 0, "image"]])
    threshold = line.panels[0].threshold
    for panel in line.panels:
        raw = dict(read_maps(run, panel.experience, "candle"))[example.image].astype(np.float32)
        np.testing.assert_allclose(panel.map, (raw - usual) / (threshold - usual), rtol=1e-4, atol=1e-5)
    assert example.picture.shape == (224, 224, 3) and example.mask.any()
    again = invoke("explain", "auroc", run.path)
    assert f"candle {line.panels[-1].auroc:.3f}" in again.stdout


def test_the_figure_states_rule_runs_scores_and_that_data_are_synthetic(kept):
    example = make_example(groups_of(kept), "candle")
    figure = qualitative_figure(example, published())
    shown = " ".join(" ".join(texts(figure)).split())
    assert "the one with the median score right after the object was learnt" in shown
    assert "ranks averaged over the strategies" in shown and "SYNTHETIC DATA" in shown
    assert "after 1: base" in shown and "after 2: +cashew" in shown and "all objects at once" in shown
    for line in example.lines:
        assert line.group.title in shown
        for panel in line.panels:
            word = "found" if panel.score >= panel.threshold else "missed"
            assert f"score {panel.score:.3g}, threshold {panel.threshold:.3g} {word}" in shown
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 > -0.05 and box.y0 > -0.05 and box.x1 < width + 0.05 and box.y1 < height + 0.05
    scales = {i.norm.vmax for a in figure.axes for i in a.get_images() if i.get_array().ndim == 2}
    assert len(scales) == 1


def test_on_the_command_line(kept, tmp_path):
    done = invoke(
        "figures", "--results", kept, "--out", tmp_path, "--qualitative", "--objects", "candle,cashew"
    )
    assert done.exit_code == 0 and done.stderr == "", done.output
    stem = "qualitative_visa-synthetic_visa_2_1"
    names = [f"{stem}_{o}.{e}" for o in ("candle", "cashew") for e in ("png", "pdf")]
    assert [line.rpartition("/")[2] for line in done.stdout.splitlines()] == names
    before = (tmp_path / names[0]).read_bytes()
    one = invoke(
        "figures", "--results", kept, "--out", tmp_path / "2", "--qualitative", "--strategies", "joint"
    )
    assert len(one.stdout.splitlines()) == 6 and before != (tmp_path / "2" / names[0]).read_bytes()


def test_all_figures_and_the_report_have_them_where_maps_are(kept, tmp_path):
    done = invoke("figures", "--results", kept, "--out", tmp_path)
    assert sum("qualitative" in line and line.endswith(".png") for line in done.stdout.splitlines()) == 3
    page = tmp_path / "report.html"
    assert invoke("report", "--results", kept, "--out", page).exit_code == 0
    text = page.read_text()
    assert text.count("of the object&#39;s defective test images the one with the median score") == 3


def test_without_maps_the_report_says_how_to_keep_them(tmp_path):
    make_run(tmp_path, "elpv_1_1", masks=False)
    assert invoke("report", "--results", tmp_path).exit_code == 0
    assert "iufbench evaluate RUN --save-maps" in (tmp_path / "report.html").read_text()
    refused = invoke("figures", "--results", tmp_path, "--qualitative")
    assert refused.exit_code == 2 and "--save-maps" in refused.stderr


def test_what_is_asked_for_by_name_must_have_maps(results):
    for path in results.rglob("cashew.npz"):
        path.unlink()
    drawn = {w.object for w in qualitative_figures(groups_of(results))}
    assert drawn == {"candle", "capsules"}
    refused = invoke("figures", "--results", results, "--qualitative", "--objects", "cashew")
    assert refused.exit_code == 2 and "--save-maps --objects cashew" in refused.stderr
    shutil.rmtree(next(results.glob("runs/*/*/joint/*/seed0")) / "maps")
    done = invoke("figures", "--results", results, "--qualitative", "--objects", "candle")
    assert done.exit_code == 0 and "is without visa-synthetic/visa_2_1/joint" in done.stderr


@pytest.mark.parametrize(
    ("option", "name", "hint"),
    [("--objects", "candel", "did you mean 'candle'"), ("--strategies", "jiont", "did you mean 'joint'")],
)
def test_unknown_names(kept, option, name, hint):
    done = invoke("figures", "--results", kept, "--qualitative", option, name)
    assert done.exit_code == 2 and hint in done.stderr
    assert invoke("figures", "--results", kept, option, name).exit_code == 2  # --qualitative is missing


def test_maps_of_another_training_are_refused(results):
    (group, _) = groups_of(results)
    maps = dict(read_maps(group.runs[0], 1, "candle"))
    path = maps_path(group.runs[0].path, 1, "candle")
    write_maps(path, 1.1 * np.array(list(maps.values()), dtype=np.float32), list(maps))
    with pytest.raises(RunError, match="does not belong to the scores of"):
        make_example([group], "candle")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RunError, match=r"is corrupted .*iufbench evaluate"):
        make_example([group], "candle")


def test_images_that_are_gone_cost_only_this_figure(data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "moved")
    run = tiny_run("finetune", moved, tmp_path / "results")
    assert invoke("evaluate", run.path, "--save-maps", "--device", "cpu", "-q").exit_code == 0
    shutil.rmtree(moved)
    done = invoke("figures", "--results", tmp_path / "results")
    assert done.exit_code == 0 and str(moved) in done.stderr and "curves_" in done.stdout
    assert "qualitative" not in done.stdout
    assert invoke("report", "--results", tmp_path / "results").exit_code == 0
    refused = invoke("figures", "--results", tmp_path / "results", "--qualitative")
    assert refused.exit_code == 2 and str(moved) in refused.stderr
