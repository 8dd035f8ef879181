"""Protocols: the published ones, the grammar, orders, and invalid names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iufbench.cards.datasets import dataset_cards
from iufbench.cards.protocols import find_protocol, protocol_cards, resolve_protocol
from iufbench.support.errors import InputError

VISA = protocol_cards()["visa_8_1x4"].objects


@pytest.mark.parametrize("alias", ["visa_8_1x4", "8-1 with 4 Steps", "8-1x4", "VisA 3"])
def test_aliases_mean_the_same_protocol(alias):
    assert resolve_protocol(alias, VISA).id == "visa_8_1x4"


def test_aliases_are_unique():
    names = [n for p in protocol_cards().values() for n in {p.id, *p.aliases}]
    assert len(names) == len(set(names))


def test_cards_agree_with_the_grammar():
    for card in protocol_cards().values():
        if card.id.endswith("_reversed") or card.dataset == "mixed":
            continue
        sizes = [len(e) for e in card.experiences]
        steps = f"x{len(sizes) - 1}" if len(sizes) > 2 else ""
        assert card.id == f"{card.dataset}_{sizes[0]}_{sizes[1]}{steps}"


@given(base=st.integers(1, 8), step=st.integers(1, 4), count=st.integers(1, 6))
def test_the_grammar_splits_objects_without_loss(base, step, count):
    name = f"visa_{base}_{step}x{count}"
    if base + step * count > len(VISA):
        with pytest.raises(InputError, match="but visa has 12"):
            resolve_protocol(name, VISA)
        return
    protocol = resolve_protocol(name, VISA)
    assert [len(e) for e in protocol.experiences] == [base] + [step] * count
    assert protocol.objects == VISA[: base + step * count]
    assert len(protocol.introduced) == len(protocol.objects)


def test_order_seed_is_reproducible_and_part_of_the_id():
    one, again = (resolve_protocol("visa_8_1x4", VISA, order_seed=3) for _ in range(2))
    assert one == again
    assert sorted(one.objects) == sorted(VISA) and one.objects != VISA
    assert one.id == "visa_8_1x4+order3" and one.order == "seed:3"
    assert resolve_protocol("visa_8_1x4", VISA, order_seed=4).objects != one.objects


def test_a_given_order_is_kept():
    protocol = resolve_protocol("visa_1_1", VISA, order=["pcb4", "candle"])
    assert protocol.experiences == (("pcb4",), ("candle",))
    assert protocol.id == "visa_1_1+pcb4-candle"


def test_a_data_set_name_may_hold_underscores():
    assert find_protocol("my_parts_2_1x3") == ("my_parts", None)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("visa_8_1x44x", {}, "did you mean"),
        ("visa", {}, "unknown protocol 'visa'"),
        ("visa_0_1", {}, "at least one object"),
        ("visa_8_0x2", {}, "at least one object"),
        ("visa_8_1x0", {}, "leaves no increment"),
        ("visa_9_9", {}, "needs 18 objects, but visa has 12"),
        ("visa_3x5", {}, "protocol 'visa_3x5' needs 15 objects, but visa has 12"),
        ("visa_1_1", {"order": ["pcb4", "candel"]}, "did you mean 'candle'"),
        ("visa_1_1", {"order": ["pcb4"]}, "names 1 objects"),
        ("visa_1_1", {"order": ["pcb4", "pcb4"]}, "twice"),
        ("visa_1_1", {"order": ["pcb4", "candle"], "order_seed": 1}, "cannot be given together"),
    ],
)
def test_bad_protocols_are_named(name, options, message):
    with pytest.raises(InputError) as caught:
        resolve_protocol(name, VISA, **options)
    assert message in str(caught.value)


def test_published_orders_are_on_the_cards():
    """Every order of a card names its own objects, and is used by its name."""
    for name, card in dataset_cards().items():
        for order, objects in card.orders.items():
            assert len(set(objects)) == len(objects) and set(objects) <= set(card.objects), (name, order)
    card = dataset_cards()["btad"]
    found = resolve_protocol("btad_1_1x2", card.objects, order=["easy-hard"], orders=card.orders)
    assert found.id == "btad_1_1x2+easy-hard" and found.objects == ("03", "01", "02")
    with pytest.raises(InputError, match="--order easy-hard has 6 objects, protocol 'visa_8_4' needs 12"):
        card = dataset_cards()["visa"]
        resolve_protocol("visa_8_4", card.objects, order=["easy-hard"], orders=card.orders)
