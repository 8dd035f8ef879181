"""Whatever text a card, protocol, setting or list holds, it is understood or refused with InputError."""

from __future__ import annotations

import json
import os
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iufbench.cards.protocols import find_protocol, protocol_cards, resolve_protocol
from iufbench.cards.strategies import load_strategy, resolve
from iufbench.cards.yaml_files import parse_yaml, read_yaml
from iufbench.data.readers.json_lists import read_json_lists
from iufbench.data.readers.reading import path_below
from iufbench.data.readers.visa import read_visa
from iufbench.support.errors import InputError
from iufbench.support.fields import convert

VISA = protocol_cards()["visa_8_1x4"].objects
SOME = settings(
    max_examples=60,
    derandomize=True,  # the same examples everywhere
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
YAMLISH = st.text(st.sampled_from("abx01:-?[]{},&*!|>'\"%@#\n \t.~\0\u00e9\u2028"), max_size=60)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)

KEYS = ("base", "network", "backbone", "increment.epochs", "image_size", "title", "stream")


def refused(call, *arguments):
    """What a call gives, or None when it says InputError in words that can be read."""
    try:
        return call(*arguments)
    except InputError as error:
        assert str(error) and len(str(error)) < 3000
        return None


@SOME
@given(text=YAMLISH)
def test_any_text_is_yaml_or_refused(text):
    refused(parse_yaml, text, "here")


@SOME
@given(value=st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=5), PLAIN, max_size=4))
def test_plain_values_are_read_as_yaml_reads_them(value):
    text = yaml.safe_dump(value)
    found = refused(parse_yaml, text, "here")
    assert repr(found) == repr(yaml.safe_load(text))


@SOME
@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_card_or_refused(content, tmp_path):
    path = tmp_path / "card.yaml"
    path.write_bytes(content)
    assert isinstance(refused(read_yaml, path), (dict, type(None)))


@SOME
@given(key=st.sampled_from(KEYS), value=PLAIN)
def test_any_value_on_a_card_is_typed_or_refused(key, value):
    recipe = refused(
        resolve, load_strategy("uniad"), "visa", "visa_8_1x4", "paper", [f"{key}={json.dumps(value)}"]
    )
    if recipe is not None:
        assert 32 <= recipe.image_size <= 1024 and recipe.fingerprint()
        json.dumps(recipe.as_dict(), allow_nan=False)


@SOME
@given(text=st.text(max_size=40))
def test_any_setting_is_refused_or_valid(text):
    refused(resolve, load_strategy("uniad"), "visa", "visa_8_1x4", "quick", [text])


@SOME
@given(value=PLAIN, hint=st.sampled_from([int, float, bool, str, list[int], int | None, int | list[int]]))
def test_conversion_gives_the_type_or_refuses(value, hint):
    found = refused(convert, hint, value, "here", "key", {})
    if hint in (int, float, bool, str) and found is not None:
        assert type(found) is hint


@SOME
@given(
    name=st.text(max_size=30)
    | st.from_regex(r"(visa|mvtec|x_y)_[0-9]{1,5}_[0-9]{1,5}(x[0-9]{1,9})?", fullmatch=True)
)
def test_any_protocol_name_is_resolved_or_refused(name):
    if refused(find_protocol, name) is None:
        return
    protocol = refused(resolve_protocol, name, VISA)
    if protocol is not None:
        assert len(set(protocol.objects)) == len(protocol.objects) <= len(VISA)
        assert resolve_protocol(protocol.id, VISA).experiences == protocol.experiences


@SOME
@given(text=st.text(max_size=40) | st.text(st.sampled_from("./\\a~: \0"), max_size=12))
@example(text="./")
def test_no_path_of_a_list_leaves_the_root(text):
    found = refused(path_below, Path("/data/root"), text, "here")
    if found is not None:
        assert f"{os.path.normpath(found)}/".startswith("/data/root/")


LINES = st.lists(
    st.fixed_dictionaries(
        {"filename": st.text(max_size=12) | PLAIN, "label": st.sampled_from([0, 1, 2, None, "0"]) | PLAIN},
        optional={"clsname": st.text(max_size=6) | PLAIN, "maskname": st.text(max_size=6) | PLAIN},
    ).map(json.dumps)
    | st.text(max_size=20),
    max_size=4,
)


@SOME
@given(train=LINES, test=LINES)
def test_any_lists_are_refused_where_no_file_lies(train, test, tmp_path):
    for name, lines in (("train", train), ("test", test)):
        (tmp_path / name).write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError):
        read_json_lists(tmp_path, tmp_path / "train", tmp_path / "test", "x")


@SOME
@given(rows=st.lists(st.lists(st.text(max_size=10), min_size=4, max_size=6).map(",".join), max_size=4))
def test_any_table_is_refused_where_no_file_lies(rows, tmp_path):
    (tmp_path / "split_csv").mkdir(exist_ok=True)
    text = "\n".join(["object,split,label,image,mask", *rows])
    (tmp_path / "split_csv" / "1cls.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError):
        read_visa(tmp_path)


@pytest.mark.slow
def test_very_long_lists_are_judged_in_one_pass(tmp_path):
    """50,000 objects of one image each: anything quadratic would take minutes."""
    n = 50_000
    lines = (f'{{"filename": "o{k}/a/b/x.png", "label": 0, "clsname": "o{k}"}}\n' for k in range(n))
    (tmp_path / "train").write_text("".join(lines))
    (tmp_path / "test").write_text('{"filename": "o0/a/b/y.png", "label": 0, "clsname": "o0"}\n')
    message = ""
    try:
        read_json_lists(tmp_path, tmp_path / "train", tmp_path / "test", "x")
    except InputError as error:
        message = str(error)
    assert "no test image of object 'o1'" in message and len(message) < 500
