"""Figures: drawn from run directories, complete, labelled, inside their borders. Numbers are generated."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest
from fake_runs import MVTEC, OBJECTS, VISA, fake_matrix, make_run
from matplotlib import font_manager
from matplotlib.collections import PolyCollection
from matplotlib.text import Text

from iufbench.reporting.figures import drawing
from iufbench.reporting.figures.bars import cost_figure, forgetting_figure
from iufbench.reporting.figures.budgets import budget_figure, swept
from iufbench.reporting.figures.build import write_figures, write_run_figures
from iufbench.reporting.figures.curves import curve_figure, paper_figure, run_curves, stream_figure
from iufbench.reporting.figures.drawing import styles
from iufbench.reporting.figures.matrix import matrix_figure
from iufbench.reporting.figures.plane import plane_figure
from iufbench.reporting.groups import group_runs
from iufbench.reporting.literature import published
from iufbench.reporting.store import find_runs, load_run
from iufbench.support.errors import InputError, RunError


def texts(figure):
    return [t.get_text() for t in figure.findobj(Text) if t.get_text() and t.get_visible()]


def assert_inside(figure):
    """Nothing is drawn outside the figure."""
    figure.canvas.draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.05 and box.y0 > -0.05 and box.x1 < width + 0.05 and box.y1 < height + 0.05


def groups_of(results):
    return group_runs(find_runs(results)[0])


@pytest.mark.parametrize("protocol", ["visa_8_1x4", "mvtec_1_1x14", "visa_8_4", "elpv_1_1"])
def test_matrix(tmp_path, protocol):
    run = load_run(make_run(tmp_path, protocol))
    figure = matrix_figure(run, "image")
    shown = texts(figure)
    for obj in run.objects:
        assert obj.replace("_", " ") in shown
    matrix = run.matrix("image")
    for value in matrix.values[matrix.seen]:
        assert f"{100 * value:.1f}" in shown
    assert run.id in shown and not any("SYNTHETIC" in t for t in shown)
    assert_inside(figure)


def test_matrix_says_synthetic(tmp_path):
    figure = matrix_figure(load_run(make_run(tmp_path, synthetic=True)), "pixel")
    assert any("SYNTHETIC DATA" in t for t in texts(figure))
    assert_inside(figure)


def test_matrix_shows_unseen_objects_apart_and_missing_values_as_such(tmp_path):
    r = np.array([[0.9, 0.31], [np.nan, 0.8]])
    figure = matrix_figure(load_run(make_run(tmp_path, "elpv_1_1", image=r, masks=False)), "image")
    (unseen,) = [t for t in figure.findobj(Text) if t.get_text() == "31.0"]
    assert unseen.get_style() == "italic"
    assert "nan" not in texts(figure)
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    assert len(hatched) == 2  # the missing cell and the mean that needs it


def test_every_figure_says_what_has_no_value_and_why(tmp_path):
    """No mean over the remaining objects: a cross instead, with the reason in the note."""
    reason = "capsules: no good test images: image AUROC is undefined; image ACC and FM stay empty"
    image = fake_matrix("visa_8_1x4", "image")
    image[:, 1] = np.nan
    for strategy in ("iuf", "frozen"):
        make_run(tmp_path, "visa_8_1x4", strategy, image=image, warnings=[reason, "another warning"])
    groups, levels = groups_of(tmp_path), ("image", "pixel")
    figures = {
        "curves": stream_figure(groups, published(), levels),
        "forgetting": forgetting_figure(groups, published(), "image"),
        "matrix": matrix_figure(groups[0].runs[0], "image"),
        "plane": plane_figure(groups, published(), levels),
        "costs": cost_figure(groups, published(), "image"),
    }
    for name, figure in figures.items():
        assert sum(" ".join(t.split()).count(reason) for t in texts(figure)) == 1, name
        assert not any("another warning" in t for t in texts(figure))
        assert_inside(figure)
    crosses = {
        name: [
            len(line.get_xdata()) for line in figures[name].axes[0].get_lines() if line.get_marker() == "x"
        ]
        for name in ("curves", "forgetting")
    }
    assert crosses == {"curves": [5, 5], "forgetting": [1]}
    assert not any(line.get_linestyle() == ":" for line in figures["forgetting"].axes[0].get_lines())
    pixel = forgetting_figure(groups, published(), "pixel")
    assert not any("no value" in t for t in texts(pixel))
    assert any(line.get_linestyle() == ":" for line in pixel.axes[0].get_lines())


def test_matrix_without_the_level(tmp_path):
    with pytest.raises(InputError, match="no pixel metrics"):
        matrix_figure(load_run(make_run(tmp_path, "elpv_1_1", masks=False)), "pixel")


def test_curve_values_by_hand(tmp_path):
    r = [[0.9] * 8 + [np.nan] * 4, [0.8] * 8 + [0.5] * 4]
    make_run(tmp_path, "visa_8_4", image=r)
    counts, curves = run_curves(groups_of(tmp_path)[0], "image")
    assert counts.tolist() == [8, 12]
    np.testing.assert_allclose(curves, [[90.0, 70.0]])


def test_curves_show_published_lines_as_digitised(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "visa_8_1x4", "iuf", seed)
    make_run(tmp_path, "visa_8_1x4", "uniad", keep=0.7)
    figure = curve_figure(find_runs(tmp_path)[0], published(), "visa_8_1x4", "image")
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert [x for x in labels if "digitised" not in x] == ["UniAD", "IUF"]
    assert len([x for x in labels if "(digitised)" in x]) == 6
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert lines["IUF (digitised)"].get_linewidth() < lines["IUF"].get_linewidth()
    np.testing.assert_allclose(lines["IUF (digitised)"].get_ydata()[-1], 65.7, atol=0.2)
    assert len(figure.axes[0].findobj(PolyCollection)) == 1  # one band: one group has several seeds
    assert any("standard deviation" in t for t in texts(figure))
    assert_inside(figure)


def test_synthetic_curves_stand_alone(tmp_path):
    make_run(tmp_path, "visa_8_1x4", synthetic=True)
    figure = curve_figure(find_runs(tmp_path)[0], published(), "visa_8_1x4", "image")
    assert not any("digitised" in t for t in texts(figure))
    assert any("SYNTHETIC DATA" in t for t in texts(figure))
    assert_inside(figure)


@pytest.mark.parametrize(("dataset", "panels"), [("MVTec AD", 8), ("VisA", 6)])
def test_figures_of_the_paper(tmp_path, dataset, panels):
    protocols = [p for p, (title, _) in published().protocols.items() if title == dataset]
    for protocol in protocols[:-1]:
        for seed in range(2):
            make_run(tmp_path, protocol, "iuf", seed)
        make_run(tmp_path, protocol, "my strategy with a long name", keep=0.6)
    make_run(tmp_path, protocols[0], "iuf", 0, recipe_hash="ffff0000", keep=0.8)
    figure = paper_figure(groups_of(tmp_path), published(), dataset)
    assert len(figure.axes) == panels
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0].startswith("(A-1)") and titles[panels // 2].startswith("(B-1)")
    assert all(len(axes.get_lines()) >= 6 for axes in figure.axes)
    assert_inside(figure)


def test_forgetting_by_hand(tmp_path):
    r = [[0.9] * 8 + [np.nan] * 4, [0.8] * 8 + [0.5] * 4]
    make_run(tmp_path, "visa_8_4", image=r)
    figure = forgetting_figure(groups_of(tmp_path), published(), "image")
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(widths, [10.0] * 8 + [0.0] * 4)
    assert_inside(figure)


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_forgetting_with_many_strategies(tmp_path, count):
    for k in range(count):
        make_run(tmp_path, "mvtec_10_1x5", f"strategy {k}", synthetic=count == 1)
    figure = forgetting_figure(groups_of(tmp_path), published(), "image")
    assert sum(axes.get_visible() for axes in figure.axes) == count
    assert_inside(figure)


def test_costs(tmp_path):
    for strategy, seconds, kept, keep in [("a", 10, 0, 0.5), ("b", 100, 5e6, 0.8), ("c", 5000, 4e8, 0.7)]:
        make_run(
            tmp_path,
            strategy=strategy,
            keep=keep,
            seconds={"train": seconds},
            costs={"bytes_kept": [0, int(kept)]},
        )
    figure = cost_figure(groups_of(tmp_path), published(), "image")
    for axes in figure.axes:
        (front,) = [line for line in axes.get_lines() if line.get_drawstyle() == "steps-post"]
        assert len(front.get_xdata()) == 2  # c is dearer and worse than b
    assert_inside(figure)


def test_costs_that_were_not_recorded_are_not_drawn(tmp_path):
    """As of an external run, which has no device either."""
    make_run(tmp_path, strategy="a", seconds={}, costs={}, environment={"device": None})
    for number in range(8):
        make_run(
            tmp_path, strategy=f"external-{number} of somebody else", kind="external", seconds={}, costs={}
        )
    make_run(tmp_path, strategy="b")
    figure = cost_figure(groups_of(tmp_path), published(), "image")
    assert figure.axes[0].get_legend_handles_labels()[1] == ["b"]
    note = figure.legends[0].get_title().get_text()
    assert "no costs recorded, not drawn: a" in note and "devices" not in note
    assert_inside(figure)


def test_titles_are_text_not_formulas(tmp_path):
    make_run(tmp_path, "visa_8_4", "$x^$ <script>")
    figure = stream_figure(groups_of(tmp_path), published(), ["image", "pixel"])
    assert_inside(figure)  # drawing would fail on a broken formula
    assert_inside(matrix_figure(groups_of(tmp_path)[0].runs[0], "image"))


MANY = [
    *(
        "frozen",
        "finetune",
        "separate",
        "cumulative",
        "uniad",
        "ewc",
        "ewc_online",
        "si",
        "mas",
        "lwf",
        "gpm",
    ),
    *("agem", "replay", "replay_reservoir", "der", "lvt", "padim", "padim_per_object", "patchcore"),
    *("patchcore_oracle", "patchcore_per_object", "iuf", "iuf_release", "iuf_without_scl", "mine"),
]


def many(results):
    for k, strategy in enumerate(MANY):
        make_run(results, "visa_8_1x4", strategy, keep=1 if strategy == "frozen" else 0.5 + 0.02 * k)
    return groups_of(results)


def test_every_strategy_has_a_look_of_its_own_in_every_figure(tmp_path):
    groups = many(tmp_path)
    look = styles(groups)
    assert len({look[name] for name in MANY}) == len(MANY)
    assert len(set(look.values())) == len(look)
    assert styles(groups[:3])["iuf"] == look["iuf"]  # whatever else was run
    by_family = {}
    for group in groups:
        by_family.setdefault(group.family, set()).add(look[group.strategy].colour)
    assert all(len(colours) == 1 for colours in by_family.values()) and len(by_family) == 7


def test_many_strategies_are_drawn_by_family_and_by_name(tmp_path):
    groups = many(tmp_path)
    figure = stream_figure(groups, published(), ["image", "pixel"])
    assert len(figure.axes) == 2 * 7
    for axes in figure.axes:
        grey = [line for line in axes.get_lines() if line.get_color() == drawing.GREY]
        assert 0 < len(axes.get_lines()) - len(grey) <= 10 and len(axes.get_lines()) >= len(MANY)
    assert {g.title for g in groups} <= set(texts(figure))
    assert_inside(figure)
    figure = stream_figure(groups, published(), ["image"], highlight=["iuf", "frozen"])
    assert len(figure.axes) == 1
    shown = figure.axes[0].get_legend_handles_labels()[1]
    assert [x for x in shown if "digitised" not in x] == ["frozen", "IUF"]
    assert_inside(figure)


def test_forgetting_of_many_strategies_is_one_sorted_axis(tmp_path):
    figure = forgetting_figure(many(tmp_path), published(), "image")
    (axes,) = figure.axes
    widths = [bar.get_width() for bar in axes.patches]
    assert len(widths) == len(MANY) and widths == sorted(widths)
    assert_inside(figure)


def test_the_plane_has_its_corners_and_says_what_is_missing(tmp_path):
    groups = many(tmp_path)
    figure = plane_figure(groups, published(), ["image"])
    assert {"frozen", "finetune", "separate"} <= set(texts(figure))
    assert len(figure.axes[0].get_legend_handles_labels()[1]) == len(MANY)
    assert_inside(figure)
    figure = plane_figure(alone(tmp_path), published(), ["image"])
    assert any("--eval-unseen" in t for t in texts(figure))


def alone(results):
    make_run(results / "alone", "visa_8_1x4", "iuf")
    return groups_of(results / "alone")


def test_pdf_figures_have_truetype_fonts(quick_pdf, monkeypatch):
    """As journals ask for: their checks refuse Type 3 fonts, which the other tests use."""
    monkeypatch.setitem(drawing.STYLE, "pdf.fonttype", quick_pdf)
    figure = drawing.new_figure(2, 1)
    figure.text(0.5, 0.5, "bottle")
    found = drawing.drawn(figure, "pdf")
    assert b"/CIDFontType2" in found and b"/Type3" not in found


def test_run_figures(tmp_path):
    path = make_run(tmp_path, "visa_8_4")
    files = write_run_figures(path)
    assert sorted(f.name for f in files) == sorted(
        f"{n}.{e}" for n in ("matrix_image", "matrix_pixel", "curve") for e in ("png", "pdf")
    )
    data = (path / "curve.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000 and height > 500
    assert (path / "curve.pdf").read_bytes().startswith(b"%PDF")
    again = {f.name: f.read_bytes() for f in write_run_figures(path)}
    assert again["curve.png"] == data and again["curve.pdf"] == (path / "curve.pdf").read_bytes()


def test_run_figures_without_masks(tmp_path):
    files = write_run_figures(make_run(tmp_path, "elpv_1_1", masks=False))
    assert {f.stem for f in files} == {"matrix_image", "curve"}


WIDE_NAMES = ["瓶子", "カプセル", "나사"]


@pytest.mark.parametrize("fonts", ["none for these letters", "what is installed"])
def test_object_names_in_chinese_japanese_and_korean(tmp_path, monkeypatch, capsys, caplog, fonts):
    """PNG and PDF are drawn with or without a font for the names, and the user is told once at most."""
    wide = [f for f in font_manager.findSystemFonts() if "cjk" in f.lower() or "wqy" in f.lower()]
    if fonts == "what is installed" and not wide:
        pytest.skip("no font with these letters here")
    monkeypatch.setitem(OBJECTS, "elpv", WIDE_NAMES)
    path = make_run(tmp_path, "elpv_1_1x2", masks=False)
    assert load_run(path).objects == tuple(WIDE_NAMES)
    if fonts.startswith("none"):
        monkeypatch.setattr(drawing, "_fonts", lambda: ["DejaVu Sans"])
    else:  # matplotlib itself may have looked for fonts before this one was installed
        manager = font_manager.fontManager
        monkeypatch.setattr(manager, "ttflist", list(manager.ttflist))
        manager.addfont(sorted(wide)[0])
        drawing._fonts.cache_clear()
        assert len(drawing._fonts()) > 1
    drawing._say_missing_letters.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = write_run_figures(path)
    assert {f.name for f in files} == {"matrix_image.png", "matrix_image.pdf", "curve.png", "curve.pdf"}
    assert all(f.stat().st_size > 5000 for f in files)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == fonts.startswith("none") and all("install one of" in line for line in said)
    assert caplog.records == []
    drawing._say_missing_letters.cache_clear()
    if not fonts.startswith("none"):
        drawing._fonts.cache_clear()


def test_write_figures(tmp_path):
    make_run(tmp_path, "visa_8_4", "iuf")
    make_run(tmp_path, "visa_8_4", "uniad")
    make_run(tmp_path, "elpv_1_1", "iuf", synthetic=True, masks=False)
    damaged = make_run(tmp_path, "visa_11_1", "iuf")
    (damaged / "metrics.csv").unlink()
    warnings = []
    names = {
        p.name for p in write_figures(tmp_path, tmp_path / "figures", warn=warnings.append, matrices=True)
    }
    assert {
        "figure2_visa.png",
        "figure2_visa.pdf",
        "curves_visa_visa_8_4.png",
        "forgetting_visa_visa_8_4_pixel.pdf",
        "costs_visa_visa_8_4_image.png",
        "profiles_visa_visa_8_4_image.png",
        "matrix_visa_visa_8_4_uniad_0a1b2c3d_seed0_pixel.png",
        "curves_elpv-synthetic_elpv_1_1.png",
    } <= names
    assert not any("figure1" in n or "costs_elpv" in n or "profiles_elpv" in n for n in names)
    assert len(warnings) == 1 and "visa_11_1" in warnings[0]
    with pytest.raises(RunError, match="visa_11_1"):
        write_figures(tmp_path, tmp_path / "figures", strict=True)


def test_no_runs(tmp_path):
    with pytest.raises(InputError, match="iufbench run"):
        write_figures(tmp_path, tmp_path / "figures")


def test_the_digitised_curves_give_back_the_printed_acc():
    """The definition of ACC was found this way: the mean of each published curve is the printed number."""
    numbers = published()
    for protocol in numbers.protocols:
        rows = numbers.curves
        rows = rows[(rows.protocol == protocol) & (rows.level == "image") & (rows.method == "IUF")]
        value = numbers.value("IUF", protocol, "image", "acc")
        assert value.sign == ""
        assert abs(rows.auroc_percent.mean() - value.percent) < 0.1
    assert len(numbers.protocols) == 7 and len(MVTEC) == 15 and len(VISA) == 12


def test_a_sweep_over_budgets_has_a_curve(tmp_path):
    """Two strategies over three budgets: one line each, its points from the smallest to the largest."""
    for strategy in ("contcore", "patchcore_cl"):
        for number, kept in enumerate((4_000_000, 1_000_000, 2_000_000)):
            costs = {"bytes_kept": [kept // 2, kept], "replayed_images": [0, 0]}
            make_run(tmp_path, "visa_11_1", strategy, recipe_hash=f"{number:08x}", costs=costs)
    make_run(tmp_path, "visa_11_1", "uniad")
    groups = groups_of(tmp_path)
    assert set(swept(groups)) == {"contcore", "patchcore_cl"}
    figure = budget_figure(groups, published(), "image")
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(lines) == 2
    for line in lines:
        assert list(line.get_xdata()) == [1.0, 2.0, 4.0]
    values = {
        g.recipe_hash: 100 * g.values("image", "auroc", "acc_final")[0] for g in swept(groups)["contcore"]
    }
    assert list(lines[0].get_ydata()) == pytest.approx([values[f"{n:08x}"] for n in (1, 2, 0)])
