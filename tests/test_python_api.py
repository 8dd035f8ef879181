"""``import iufbench as ib``: every public name, its documentation executed, the notebook executed."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fake_runs import make_run

import iufbench as ib
from iufbench.cli import run as cli_run
from iufbench.cli import sweep as cli_sweep
from iufbench.cli.main import main
from iufbench.sweeps import api as sweeps_api

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
TINY = {"image_size": 64}


@pytest.fixture(scope="module")
def small_synthetic(data, tmp_path_factory):
    """A cache folder whose synthetic VisA is the tiny one, so that ``synthetic=True`` takes seconds."""
    from iufbench.data.synthetic import GENERATOR_VERSION

    folder = tmp_path_factory.mktemp("small_cache")
    shutil.copytree(data, folder / "synthetic" / f"visa-v{GENERATOR_VERSION}-seed0")
    return folder


@pytest.fixture
def here(small_synthetic, tmp_path, monkeypatch):
    monkeypatch.setenv("IUFBENCH_CACHE", str(small_synthetic))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def results(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, "elpv_1_1", "iuf", seed, masks=False)
        make_run(tmp_path, "elpv_1_1", "finetune", seed, masks=False, keep=0.5)
    return tmp_path


def test_every_public_name_is_there_and_documented():
    for name in ib.__all__:
        assert getattr(ib, name) is not None
        assert name in dir(ib)
        assert name == "__version__" or f"ib.{name}" in PAGE or f"`{name}`" in PAGE, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        ib.nothing  # noqa: B018


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_is_light():
    heavy = "[m for m in ('torch', 'avalanche', 'pandas', 'matplotlib') if m in sys.modules]"
    code = (
        "import sys, time; start = time.process_time(); import iufbench as ib\n"
        f"print(time.process_time() - start, {heavy})"
    )
    times = [output_of(code).split(" ", 1) for _ in range(3)]
    assert min(float(took) for took, _ in times) < 0.3
    assert {found for _, found in times} == {"[]"}


def test_functions_load_neither_torch_nor_avalanche_before_they_are_called():
    code = "import sys, iufbench as ib; ib.run, ib.sweep, ib.tables, ib.list_runs, ib.explain\n"
    assert output_of(code + "print([m for m in ('torch', 'avalanche') if m in sys.modules])") == "[]"


def test_no_package_hides_a_function():
    packages = {p.stem for p in (ROOT / "iufbench").iterdir() if p.is_dir() or p.suffix == ".py"}
    assert not packages & set(ib.__all__)


def test_types_reach_mypy(tmp_path):
    (tmp_path / "use.py").write_text(
        "import iufbench as ib\n"
        "run: ib.Run = ib.run('visa_2_1', 'padim')\n"
        "runs: list[ib.Run] = ib.sweep('paper')\n"
        "wrong: int = ib.load_run('x')\n"
        "ib.run('visa_2_1', 'padim', sede=1)\n"
    )
    # Following the libraries costs half a minute and is not what is asked here.
    skipped = ("torch", "avalanche", "numpy", "torchvision", "timm", "pandas", "scipy", "PIL", "matplotlib")
    config = "[mypy]\n" + "".join(f"[mypy-{m}.*]\nfollow_imports = skip\n" for m in skipped)
    (tmp_path / "mypy.ini").write_text(config)
    words = ["--no-incremental", "--follow-imports=silent", "--config-file", "mypy.ini", "use.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if "error" in line]
    assert [line.split(":")[1] for line in lines[:2]] == ["4", "5"], done.stdout


@pytest.mark.parametrize(
    ("command", "function", "only_there", "only_here"),
    [
        (cli_run.run, ib.run, {"dry_run", "probe", "verify"}, set()),
        (
            main.commands["sweep"].commands["run"],
            ib.sweep,
            {"dry_run", "probe", "list_runs"},
            {"options"},
        ),
    ],
)
def test_functions_have_the_options_of_their_commands(command, function, only_there, only_here):
    options = {p.name for p in command.params if p.name != "help"} - only_there
    parameters = set(inspect.signature(function).parameters)
    if "options" in only_here:  # what all runs share is passed on by name
        options &= parameters | {"engine", "jobs", "grid", "name"}
    assert parameters - only_here == options
    for name, parameter in inspect.signature(function).parameters.items():
        assert f"{name}:" in inspect.getdoc(function), name
        assert parameter.annotation is not inspect.Parameter.empty


def test_a_run_from_python_is_the_run_of_the_command_line(here, capsys):
    run = ib.run("visa_2_1", "padim", synthetic=True, settings=TINY, results="a", quiet=True)
    assert capsys.readouterr() == ("", "")
    arguments = ["run", "--protocol", "visa_2_1", "--strategy", "padim", "--synthetic"]
    done = CliRunner().invoke(main, [*arguments, "--set", "image_size=64", "--results", "b", "-q"])
    assert done.exit_code == 0, done.output
    (other,) = ib.find_runs("b")
    assert other.id == run.id and other.metrics.equals(run.metrics) and other.scores().equals(run.scores())
    assert run.complete and run.synthetic and run.figures
    stamp = (run.path / "run.json").stat().st_mtime_ns
    again = ib.run("visa_2_1", "padim", synthetic=True, settings=["image_size=64"], results="a")
    assert (again.path / "run.json").stat().st_mtime_ns == stamp
    assert "already complete" in capsys.readouterr().err
    shown = run._repr_html_()
    assert "SYNTHETIC" in shown and "candle" in shown and "acc" in shown


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"strategy": "padimm"}, "did you mean 'padim'"),
        ({"protocol": "visa_9_9x9"}, "visa_9_9x9"),
        ({"protocol": "vis_2_1"}, "vis"),
        ({"seed": "3"}, "seed must be an integer"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"threads": 0}, "threads must be >= 1"),
        ({"precision": "fp8"}, "precision must be auto, fp32, tf32, bf16"),
        ({"checkpoint_epochs": 0}, "checkpoint_epochs must be >= 1"),
        ({"loggers": ["csv"]}, "loggers: unknown 'csv'"),
        ({"train_list": "x"}, "belong together"),
        ({"diagnose_every": 2}, "belongs to"),
        ({"settings": {"image_sise": 64}}, "did you mean 'image_size'"),
        ({"settings": {"image_size": np.int64(2000)}}, "image_size must be <= 1024"),
        ({"settings": {"image_size": object()}}, "settings: image_size must be a plain value"),
        ({"settings": "image_size=2000"}, "image_size must be <= 1024"),
        ({"order": {"candle", "pcb1"}}, "order must be text or a list of texts"),
        ({"order": [1, 2, 3]}, "order must be text or a list of texts"),
        ({"order": []}, "contains no names"),
        ({"good_names": "normal"}, "--good-name normal: "),
        ({"good_names": [3]}, "good_names must be text or a list of texts"),
        ({"protocol": None}, "unknown protocol 'None'"),
        ({"data_root": 3}, "data_root must be a path"),
        ({"accept_masks": "yes"}, "accept_masks must be true or false"),
    ],
)
def test_wrong_input_is_an_input_error_and_writes_nothing(here, options, reason):
    wrong = {"protocol": "visa_2_1", "strategy": "padim", "synthetic": True, **options}
    with pytest.raises(ib.InputError, match=re.escape(reason)):
        ib.run(**wrong)
    assert not (here / "results").exists()


def test_a_corrupted_directory_is_a_run_error(results):
    run = ib.find_runs(results)[0]
    (run.path / "run.json").write_text("{")
    with pytest.raises(ib.RunError, match="not JSON"):
        ib.load_run(run.path)
    with pytest.warns(UserWarning, match="skipped .*not JSON"):
        assert len(ib.find_runs(results)) == 3
    assert (ib.list_runs(results)["status"] == "corrupted").sum() == 1


def test_results_of_a_folder(results):
    assert [
        run.seed for run in ib.find_runs(results, strategy="iuf", protocol="elpv_1_1", dataset="elpv")
    ] == [0, 1]
    assert ib.find_runs(results, strategy="none") == []
    made = ib.tables(results, formats=["md", "csv"])
    assert len(made.paths) == 2 * len(made) and all(path.is_file() for path in made.paths)
    assert isinstance(made["costs_elpv"].frame(), pd.DataFrame) and "<table" in made._repr_html_()
    assert str(made["costs_elpv"]) == (results / "tables" / "costs_elpv.md").read_text()
    with pytest.raises(ib.InputError, match="no table 'x'"):
        made["x"]
    table = ib.compare("iuf", "finetune", results=results)
    assert "differences by seed" in table.frame().columns
    assert ib.report(results, results / "all.html").is_file()
    with pytest.raises(ib.InputError, match="qualitative"):
        ib.figures(results, objects="mono")


def test_figures_are_written_where_asked(results):
    paths = ib.figures(results, results / "pictures")
    assert paths and all(path.parent == results / "pictures" for path in paths)


def test_a_matrix_as_a_frame(results):
    run = ib.find_runs(results)[0]
    frame = run.matrix("image").frame
    assert list(frame.columns) == ["mono", "poly"] and frame.index.name == "after experience"
    np.testing.assert_array_equal(frame.to_numpy(), run.matrix("image").values)
    with pytest.raises(ValueError, match="read-only"):
        run.matrix("image").values[0, 0] = 1


def test_lists_and_definitions(results):
    assert "visa_8_1x4" in set(ib.list_protocols()["protocol"])
    assert {"iuf", "padim"} <= set(ib.list_strategies()["strategy"])
    assert "visa" in set(ib.list_datasets()["dataset"])
    run = ib.find_runs(results)[0]
    assert ib.explain("fm", run) == ib.explain("fm", run.path) != ib.explain("fm")


def test_a_sweep_takes_one_engine_of_three():
    with pytest.raises(ib.InputError, match="engine must be one of"):
        ib.sweep("paper", engine="cloud")
    assert "slurm" in sweeps_api.ENGINES and cli_sweep.ENGINES.choices == sweeps_api.ENGINES


def test_the_page_runs_as_it_is_printed(here, monkeypatch):
    # One worker process: importing torch takes longer than its runs.
    monkeypatch.setattr("iufbench.sweeps.drive.cores", lambda: 1)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    names: dict = {"__name__": "docs"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="no QP solver found")
        for block in blocks:
            exec(compile(block, "docs/python.md", "exec"), names)
    assert len(names["runs"]) == 2 and (here / "results" / "report.html").is_file()


def test_the_notebook_runs(here, small_synthetic):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # committed without outputs
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(here))
    text = str(notebook.cells)
    assert "SYNTHETIC" in text and "candle" in text and "FM" in text
