"""Expansion of grids, and every kind of error in one."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from tiny import SETTINGS

import iufbench as ib
from iufbench.cards.registry import card_paths, shipped_grids
from iufbench.cards.request import Request, arguments, command
from iufbench.cli import run as cli_run
from iufbench.cli.main import main
from iufbench.engine.api import request_of
from iufbench.support.errors import InputError
from iufbench.sweeps.grid import Grid, expand, find_grid, read_grid, read_orders, read_seeds
from iufbench.sweeps.runs import plan_runs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def invoke(*words):
    return CliRunner().invoke(main, ["sweep", *[str(word) for word in words]])


def test_seeds_and_orders():
    assert (
        read_seeds("0-2,7") == [0, 1, 2, 7] and read_seeds(4) == [4] and read_seeds([1, "3-4"]) == [1, 3, 4]
    )
    assert read_orders("alphabetical,seed:1-2") == [(None, None), (None, 1), (None, 2)]
    assert read_orders([["b", "a"], "seed:5"]) == [(("b", "a"), None), (None, 5)]
    assert read_orders("easy-hard,alphabetical") == [(("easy-hard",), None), (None, None)]
    for bad in ("x", "3-1", "-1", "1.5", [True]):
        with pytest.raises(InputError, match="seeds"):
            read_seeds(bad)
    with pytest.raises(InputError, match="is not an order"):
        read_orders("reversed")


def test_a_grid_is_the_product_of_its_lists(tmp_path):
    grid = Grid(
        protocols=["visa_8_4", "mvtec_14_1"],
        strategies=["iuf", {"ewc": ["ewc.strength=2"]}],
        seeds="0-2",
        orders="alphabetical,seed:1",
        settings=["base.epochs=3"],
        synthetic=True,
    )
    requests = expand(grid, tmp_path)
    assert len(requests) == len(set(map(repr, requests))) == 2 * 2 * 3 * 2
    assert {r.seed for r in requests[:8]} == {0}  # the first seed of everything comes first
    assert requests[0] == Request(
        "visa_8_4", "iuf", 0, synthetic=True, settings=("base.epochs=3",), results=tmp_path
    )
    assert requests[1].settings == ("base.epochs=3", "ewc.strength=2")
    assert {r.order_seed for r in requests} == {None, 1}


def test_all_means_all_that_are_registered(tmp_path):
    requests = expand(Grid(protocols="all", strategies="all", synthetic=True), tmp_path)
    assert {r.strategy for r in requests} == set(card_paths("strategy"))
    assert {r.protocol for r in requests} == set(card_paths("protocol"))


@pytest.mark.parametrize("name", ["paper", "ablation", "frontier", "budgets", "synthetic-smoke"])
def test_ready_made_grids_are_found_and_name_what_exists(name, tmp_path):
    assert name in shipped_grids()
    requests = expand(read_grid(find_grid(name), {}), tmp_path)
    counts = {
        "paper": 7 * 6 * 3,
        "ablation": 7 * 5 * 3,
        "frontier": 9 * 18 * 3,
        "budgets": 15,
        "synthetic-smoke": 2 * len(card_paths("strategy")),
    }
    assert len(requests) == counts[name]


def test_flags_go_over_the_file(tmp_path):
    file = tmp_path / "g.yaml"
    file.write_text("protocols: [visa_8_4]\nstrategies: [iuf]\nseeds: 0-4\n")
    assert len(expand(read_grid(file, {"seeds": "7"}), tmp_path)) == 1
    assert len(expand(read_grid(file, {"strategies": ["ewc", "si"]}), tmp_path)) == 10
    file.write_text(file.read_text() + "settings: [base.epochs=3]\n")
    (first, *_) = expand(read_grid(file, {"settings": ["base.epochs=4"]}), tmp_path)
    assert first.settings == ("base.epochs=3", "base.epochs=4")  # the later one wins


def test_all_errors_are_reported_together_and_nothing_is_started(tmp_path):
    done = invoke(
        "--protocol", "visa_8_5000", "--protocol", "viso", "--strategy", "iuff", "--strategy", "ewc",
        "--seeds", "4-1", "--orders", "up", "--synthetic", "--results", tmp_path / "r",
    )  # fmt: skip
    assert done.exit_code == 2 and done.stdout == "" and not (tmp_path / "r").exists()
    for part in ("4 errors", "viso", "did you mean 'iuf'", "ends before it starts", "'up' is not an order"):
        assert part in done.stderr, part


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must be a mapping"),
        ("protocols: []\nstrategies: [iuf]", "the grid is empty: it has no protocols"),
        ("strategies: [iuf]", "the grid is empty: it has no protocols"),
        ("protocols: [visa_8_4]\nstrategies: [iuf]\nseeds: []", "the grid is empty: it has no seeds"),
        ("protocol: [visa_8_4]\nstrategies: [iuf]", "unknown key 'protocol'; did you mean 'protocols'?"),
        ("protocols: [visa_8_4]\nstrategies: [3]", "must be a name"),
        ("protocols: [visa_8_4]\nstrategies: iuf\npreset: fast", "preset must be one of paper, quick"),
    ],
)
def test_bad_files(tmp_path, content, message):
    file = tmp_path / "g.yaml"
    file.write_text(content)
    done = invoke(file, "--results", tmp_path / "r")
    assert done.exit_code == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "r").exists()


def test_an_unknown_grid_names_those_that_exist(tmp_path):
    done = invoke("papr", "--results", tmp_path)
    assert done.exit_code == 2 and "did you mean 'paper'" in done.stderr


def tiny_grid(data, tmp_path, **more):
    content = {
        "protocols": ["visa_1_1"],
        "strategies": ["finetune"],
        "data_root": str(data),
        "device": "cpu",
        "settings": [*SETTINGS, "oasa.resolution=8"],
        **more,
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_errors_that_only_planning_finds_are_reported_together_too(data, tmp_path):
    file = tiny_grid(data, tmp_path, protocols=["visa_1_1", "visa_5_9"], strategies=["finetune", "uniad"])
    done = invoke(file, "--results", tmp_path / "r")  # uniad has no oasa; visa has no 14 objects
    assert done.exit_code == 2 and not (tmp_path / "r").exists()
    assert "needs 14 objects" in done.stderr and "unknown key 'oasa'" in done.stderr


def test_two_entries_that_give_the_same_run(data, tmp_path):
    file = tiny_grid(data, tmp_path, strategies=["finetune", {"finetune": ["base.epochs=2"]}])
    done = invoke(file, "--results", tmp_path / "r")
    assert done.exit_code == 2 and "two entries give the same run visa-synthetic/visa_1_1" in done.stderr
    assert "base.epochs=2 --set base.epochs=2" not in done.stderr.split("|")[0]


def test_one_data_root_for_several_data_sets(tmp_path):
    done = invoke("paper", "--data-root", tmp_path, "--results", tmp_path / "r")
    assert done.exit_code == 2 and "set IUFBENCH_DATA" in done.stderr


def test_a_dry_run_writes_nothing(data, tmp_path):
    file = tiny_grid(data, tmp_path, seeds="0-3")
    done = invoke(file, "--dry-run", "--results", tmp_path / "r")
    assert done.exit_code == 0, done.output
    assert "4: 0 finished, 4 to do" in done.stdout and "cannot be estimated" in done.stdout
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("lists", [None, ("w.pt",), ("w.pt", "-w.pt")])
def test_the_command_of_a_run_gives_the_same_request(tmp_path, monkeypatch, lists):
    """Parsed by ``iufbench run``, every option of a request is restored, whatever its value."""
    monkeypatch.chdir(tmp_path)
    for name in ("w.pt", "-w.pt"):
        (tmp_path / name).touch()
    request = Request(
        "visa_2_1", "./my card.yaml", 3, data_root=tmp_path, synthetic=True, data_seed=2, preset="quick",
        backbone="resnet18", weights="w.pt", device="cpu", threads=2, precision="bf16", step="eager",
        compile=True, settings=("base.epochs=1", "title=it's; $(rm)"), order=("a", "-b c"), order_seed=4,
        eval_unseen=True, init_from=Path("-w.pt"), cache=False, diagnose_every=2, card=Path("w.pt"),
        good_names=("normal", "--ok"), max_pixels=7, accept_masks=True, results=Path("-r"),
        threshold="mean+3sd", calibration=0.2,
        lists=lists and tuple(map(Path, lists)),
    )  # fmt: skip
    usual = Request("visa_2_1", "iuf", lists=request.lists)
    # Every field, so that a new one must be added here.
    fields = {f.name for f in dataclasses.fields(Request)} - {"protocol", "lists"}
    assert all(getattr(request, name) != getattr(usual, name) for name in fields)
    for one in (request, usual, dataclasses.replace(usual, diagnose_every=1)):
        program, word, *words = shlex.split(command(one))
        assert [program, word, *words] == ["iufbench", *arguments(one)]
        parsed = cli_run.run.make_context(word, words).params
        options = {p: parsed[p] for p in parsed if p in inspect.signature(ib.run).parameters}
        for name in ("quiet", "verbose", "resume", "checkpoint_epochs", "loggers"):
            del options[name]
        assert request_of(**options) == one


def test_plans_are_the_same_as_those_of_single_runs(data, tmp_path):
    from iufbench.engine.plan import prepare

    file = tiny_grid(data, tmp_path, seeds="0-1", orders=["alphabetical", ["capsules", "candle"]])
    runs = plan_runs(expand(read_grid(file, {}), tmp_path), cores=2)
    assert len(runs) == 4
    for run in runs:
        assert prepare(run.request, progress=False).id == run.id
    assert {run.request.threads for run in runs} == {None}  # the quick preset uses one, as iufbench run does
