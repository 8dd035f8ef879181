"""Strategies from outside the package: the template, installed plug-ins, and their errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import assembled, tiny_plan, tiny_run

from iufbench.cards import registry
from iufbench.cli.main import main
from iufbench.support.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TEMPLATE = Path(__file__).resolve().parent.parent / "docs" / "template"
CARD = TEMPLATE / "my_strategy.yaml"


# The template ----------------------------------------------------------------------------------------


def test_the_template_is_short():
    assert len((TEMPLATE / "my_strategy.py").read_text().splitlines()) <= 40


def test_the_template_runs_as_it_stands(data, tmp_path):
    run = tiny_run(str(CARD), data, tmp_path)
    assert run.complete and run.info["strategy"]["name"] == "my_strategy"
    parameters = run.info["costs"]["parameters_total"]
    assert run.info["costs"]["bytes_kept"] == [4 * parameters, 4 * parameters]
    assert "anchor" in run.train_log()


def drift(data, tmp_path, strength: float) -> float:
    settings = (f"anchor.strength={strength}",)
    _, parts = assembled(str(CARD), data, tmp_path, settings=settings)
    learner = parts.strategy
    learner.train(parts.streams.train[0], eval_streams=[])
    old = learner.old
    learner.train(parts.streams.train[1], eval_streams=[])
    return sum(float((p - old[n]).square().sum()) for n, p in learner.model.named_parameters())


def test_the_template_does_what_it_says(data, tmp_path):
    moved = [drift(data, tmp_path, strength) for strength in (0, 1, 100)]
    assert moved[0] > moved[1] > moved[2] > 0


def test_a_bad_value_on_the_card_names_the_key(data, tmp_path):
    with pytest.raises(InputError, match=r"anchor\.strength must be >= 0"):
        tiny_plan(str(CARD), data, tmp_path, settings=("anchor.strength=-1",))


# Installed packages ----------------------------------------------------------------------------------


def install(site: Path, package: str, entry_points: str, cards: dict[str, str]) -> None:
    """A distribution as installed by pip; importing its package leaves a trace in ``sys.modules``."""
    folder = site / package / "cards"
    folder.mkdir(parents=True)
    (site / package / "__init__.py").write_text("")
    (site / package / "learners.py").write_text(
        "from iufbench.learning.base import ReconstructionStrategy\n"
        "class Mine(ReconstructionStrategy):\n    pass\n"
    )
    for name, text in cards.items():
        (folder / f"{name}.yaml").write_text(text)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[iufbench.strategies]\n{entry_points}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that simulates site-packages; its packages are unloaded afterwards."""

    def forget():
        registry._plug_ins.cache_clear()

    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield folder
    for name in [m for m in sys.modules if m.split(".")[0].startswith("acme")]:
        del sys.modules[name]
    forget()


ACME = "extends: uniad\ntitle: From Acme\nlearner: acme.learners:Mine\n"


def test_an_installed_strategy_is_listed_without_importing_it(site):
    install(site, "acme", "acme_net = acme.cards", {"acme_net": ACME})
    result = CliRunner().invoke(main, ["list", "strategies", "--json"])
    rows = {row["strategy"]: row["title"] for row in json.loads(result.stdout)}
    assert rows["acme_net"] == "From Acme" and "uniad" in rows
    assert not any(name.startswith("acme") for name in sys.modules)


def test_an_installed_strategy_runs_by_its_name(site, data, three_objects, tmp_path):
    install(site, "acme", "acme_net = acme.cards", {"acme_net": ACME})
    run = tiny_run("acme_net", data, tmp_path / "results")
    assert run.complete and run.info["strategy"]["name"] == "acme_net"
    assert run.scores()["score"].equals(three_objects("uniad").scores()["score"])


def test_a_name_that_is_taken_is_an_error(site):
    install(site, "acme", "uniad = acme.cards", {"uniad": ACME})
    with pytest.raises(InputError, match="'uniad' is provided by the installed package 'acme' and iufbench"):
        registry.card_paths("strategy")


def test_a_name_that_two_packages_give_is_an_error(site):
    install(site, "acme", "net = acme.cards", {"net": ACME})
    install(site, "acme2", "net = acme2.cards", {"net": ACME})
    with pytest.raises(InputError, match=r"'net' is provided by .*'acme2?' and .*'acme2?': uninstall one"):
        registry.find_card("strategy", "uniad")


@pytest.mark.parametrize("value", ["acme", "acme.nowhere", "acme_is_not_installed"])
def test_a_corrupted_package_harms_only_its_own_strategy(site, value):
    install(site, "acme", f"net = {value}", {"net": ACME})
    assert registry.find_card("strategy", "uniad").stem == "uniad"
    with pytest.raises(InputError, match=f"package 'acme': there is no net.yaml in '{value}'"):
        registry.find_card("strategy", "net")


def test_unknown_names_are_compared_with_installed_ones_too(site):
    install(site, "acme", "acme_net = acme.cards", {"acme_net": ACME})
    with pytest.raises(InputError, match="did you mean 'acme_net'"):
        registry.find_card("strategy", "acme_nett")


# What can be wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "learner", "messages"),
    [
        ("x = 1\ny = x / 0\n", "{m}:Mine", ["ZeroDivisionError: division by zero", "{m}.py, line 2"]),
        ("import no_such_thing_at_all\n", "{m}:Mine", ["No module named 'no_such_thing_at_all'"]),
        ("def broken(:\n", "{m}:Mine", ["SyntaxError", "{m}.py, line 1"]),
        ("class Minde: pass\n", "{m}:Mine", ["has no 'Mine'; did you mean 'Minde'?"]),
        ("class Mine: pass\n", "{m}:Mine", ["is not an Avalanche strategy class"]),
        ("Mine = 3\n", "{m}:Mine", ["is not an Avalanche strategy class"]),
        (
            "from avalanche.training.templates import SupervisedTemplate as Mine\n",
            "{m}:Mine",
            ["has no 'Options'; derive it from iufbench.learning.base:ReconstructionStrategy"],
        ),
        ("", "{m}", ["learner must be 'module:Class'"]),
        ("", "{m}_elsewhere:Mine", ["No module named '{m}_elsewhere'"]),
    ],
)
def test_what_is_wrong_with_a_plug_in_is_reported_in_one_line(
    code, learner, messages, data, tmp_path, request
):
    module = f"mine{request.node.callspec.indices['code']}"  # Python remembers modules by name
    (tmp_path / f"{module}.py").write_text(code)
    card = tmp_path / "mine.yaml"
    card.write_text(f"extends: uniad\nlearner: {learner.format(m=module)}\n")
    with pytest.raises(InputError) as caught:
        tiny_plan(str(card), data, tmp_path / "results")
    text = str(caught.value)
    assert text.startswith(str(card)) and "\n" not in text
    for message in messages:
        assert message.format(m=module) in text
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("name", "uses"),
    [
        ("patchcore_oracle", {"object_id_at_test": True, "gradients": False}),
        ("cumulative", {"object_id_at_test": False, "stored_images": True, "gradients": True}),
        (str(CARD), {"object_id_at_training": False, "gradients": True}),
    ],
)
def test_show_says_what_a_strategy_uses(name, uses):
    shown = json.loads(CliRunner().invoke(main, ["show", "strategy", name, "--json"]).stdout)["uses"]
    assert uses.items() <= shown.items()
    text = CliRunner().invoke(main, ["show", "strategy", name]).stdout
    assert "uses:\n" in text and f"gradients: {str(uses['gradients']).lower()}" in text


def test_costs_of_a_learner_without_gradients(three_objects):
    costs = three_objects("patchcore").info["costs"]
    assert costs["parameters_total"] == costs["parameters_trainable"] == 0
    assert costs["trained_images"] == [12, 6]  # once each
    assert 0 < costs["bytes_kept"][0] < costs["bytes_kept"][1]
    assert costs["train_images_per_s"] > 0 and costs["peak_memory_mb"] > 0
    assert costs["replayed_images"] == [0, 0]
