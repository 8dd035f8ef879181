"""Strategy cards: strict keys, precedence of overrides, and the identity of a recipe."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from tiny import assembled

from iufbench.cards.layers import merge
from iufbench.cards.registry import card_paths, load_class
from iufbench.cards.strategies import FAMILIES, Resources, load_strategy, resolve
from iufbench.models.position import SinePosition
from iufbench.support.errors import InputError

CARD = """
title: Mine
version: 1
learner: iufbench.learning.base:ReconstructionStrategy
backbone: {name: resnet18}
base: {epochs: 3, batch_size: 4, lr: 1e-3}
increment: {epochs: [5, 6], batch_size: 4}
per_dataset: {visa: {base: {epochs: 7}}}
per_protocol: {visa_8_1x4: {base: {epochs: 8}}}
presets: {quick: {base: {epochs: 2}}}
"""


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(CARD)
    return load_strategy(str(path))


def test_every_shipped_card_resolves_in_both_presets():
    for name in card_paths("strategy"):
        for preset in ("paper", "quick"):
            recipe = resolve(load_strategy(name), "visa", "visa_8_1x4", preset)
            assert recipe.title and recipe.provenance, name


def test_every_shipped_card_belongs_to_a_family():
    families = {n: load_strategy(n).content.get("family") for n in card_paths("strategy")}
    assert not [name for name, family in families.items() if family not in FAMILIES or family == "other"]


def test_later_sources_win(card):
    assert resolve(card, "mvtec", "mvtec_14_1", "paper").base.epochs == 3
    assert resolve(card, "visa", "visa_11_1", "paper").base.epochs == 7
    assert resolve(card, "visa", "visa_8_1x4", "paper").base.epochs == 8
    assert resolve(card, "visa", "visa_8_1x4", "quick").base.epochs == 2
    assert resolve(card, "visa", "visa_8_1x4", "quick", ["base.epochs=9"]).base.epochs == 9


def test_a_cards_own_value_wins_over_an_inherited_preset(card, tmp_path):
    """Its own preset takes precedence over both; other values are those of the inherited preset."""
    text = "extends: mine\nbase: {epochs: 6}\nnetwork: {standardise: false}\n"
    (tmp_path / "child.yaml").write_text(text)
    (tmp_path / "mine.yaml").write_text(CARD.replace("{epochs: 2}", "{epochs: 2, lr: 5e-3}"))
    child = load_strategy(str(tmp_path / "child.yaml"))
    assert resolve(child, "mvtec", "mvtec_14_1", "quick").base.epochs == 6
    assert resolve(child, "visa", "visa_8_1x4", "quick").base.epochs == 6
    assert resolve(child, "mvtec", "mvtec_14_1", "quick").base.lr == 5e-3
    (tmp_path / "child.yaml").write_text(text + "presets: {quick: {base: {epochs: 1}}}\n")
    child = load_strategy(str(tmp_path / "child.yaml"))
    assert resolve(child, "mvtec", "mvtec_14_1", "quick").base.epochs == 1
    assert child.sources["base", "epochs"] == child.sources["presets", "quick", "base", "epochs"] == "child"
    assert child.sources["presets", "quick", "base", "lr"] == child.sources["increment", "epochs"] == "mine"


def test_position_and_mask_switches_are_card_keys():
    card = load_strategy("uniad")
    recipe = resolve(card, "visa", "visa_8_1x4", "paper")
    told = ["network.position=sine", "network.mask_switches=[true, false, true]"]
    other = resolve(card, "visa", "visa_8_1x4", "paper", told)
    assert (other.network.position, other.network.mask_switches) == ("sine", (True, False, True))
    assert other.fingerprint() != recipe.fingerprint()
    with pytest.raises(InputError, match="mask_switches must be three"):
        resolve(card, "visa", "visa_8_1x4", "paper", ["network.mask_switches=[true]"])


def test_a_number_without_a_dot_before_its_exponent_is_a_number(card):
    assert resolve(card, "visa", "visa_8_1x4", "paper").base.lr == 1e-3
    assert resolve(card, "visa", "visa_8_1x4", "paper", ["base.lr=2e-5"]).base.lr == 2e-5


def test_epochs_may_differ_between_increments(card):
    increment = resolve(card, "visa", "visa_8_1x4", "paper").increment
    assert [increment.epochs_of(k) for k in (1, 2, 3)] == [5, 6, 6]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("base.epochs=-1", "base.epochs must be >= 1, not -1"),
        ("base.lr=abc", "base.lr must be a number, not 'abc'"),
        ("base.epoch=3", "unknown key 'base.epoch'; did you mean 'base.epochs'"),
        ("bas.epochs=3", "unknown key 'bas'; did you mean 'base'"),
        ("base.optimizer=adam", "base.optimizer must be one of adamw, sgd"),
        ("base.epochs=true", "base.epochs"),
        ("increment.epochs=[]", "increment.epochs must not be an empty list"),
        ("increment.epochs=[2, 0]", "increment.epochs[1] must be >= 1"),
        ("base.lr=.nan", "base.lr must be a number"),
        ("base.epochs", "must be key=value"),
        ("network.hidden=[", "not valid YAML"),
        ("backbone=3", "backbone must be a mapping"),
    ],
)
def test_bad_settings_are_named(card, setting, message):
    with pytest.raises(InputError) as caught:
        resolve(card, "visa", "visa_8_1x4", "quick", [setting])
    assert message.lower() in str(caught.value).lower()


def test_the_hash_follows_what_can_change_a_score(card):
    plain = resolve(card, "visa", "visa_8_1x4", "quick")
    same = resolve(card, "visa", "visa_8_1x4", "quick", ["title=Other", "evaluation_batch_size=7"])
    other = resolve(card, "visa", "visa_8_1x4", "quick", ["base.lr=0.5"])
    assert plain.fingerprint() == same.fingerprint() != other.fingerprint()
    assert dataclasses.replace(plain, resources=Resources(gpus=0.5)).fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: [", "line 2"),
        ("- a\n- b", "must be a mapping"),
        ("extends: nothing_of_that_name", "unknown strategy 'nothing_of_that_name'"),
        ("extends: uniad\ntitel: X", "unknown key 'titel'; did you mean 'title'"),
        ("extends: uniad\npresets: {fast: {}}", "unknown preset 'fast'"),
        ("extends: uniad\nbase: 3", "base must be a mapping"),
        ("title: X", "is missing"),
        ("extends: mine", "extends itself"),
    ],
)
def test_bad_cards_are_named_with_their_file(tmp_path, text, message):
    from iufbench.cards.strategies import options_of

    path = tmp_path / "mine.yaml"
    path.write_text(text + "\n")
    with pytest.raises(InputError) as caught:
        card = load_strategy(str(path))
        recipe = resolve(card, "visa", "visa_8_1x4", "paper")
        options_of(recipe, load_class(recipe.learner, card.path), str(path))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_unknown_strategies_get_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'uniad'"):
        load_strategy("uniat")


def test_merge_leaves_its_arguments_alone():
    base = {"a": {"b": 1}}
    assert merge(base, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert base == {"a": {"b": 1}}


@pytest.mark.parametrize("strategy", ["uniad", "iuf"])
def test_position_and_mask_switches_reach_the_network(strategy, data, tmp_path):
    told = ("network.position=sine", "network.mask_switches=[true, false, true]")
    model = assembled(strategy, data, tmp_path, settings=told)[1].strategy.model
    assert isinstance(model.pos_embed, SinePosition) and model.mask_switches == (True, False, True)


def test_the_folder_of_a_card_is_searched_only_for_the_learner_that_it_names(tmp_path, monkeypatch):
    """A received card with a learner of iufbench does not supply other modules that are missing here."""
    monkeypatch.setattr("sys.path", list(sys.path))
    load_class("iufbench.strategies.uniad:UniAD", tmp_path / "card.yaml")
    assert str(tmp_path) not in sys.path
