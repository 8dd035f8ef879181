"""``run.json``: one typed description; older and newer files are read, wrong types are reported."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fake_runs import make_run

from iufbench.reporting.record import RunRecord, read_record, record_from, write_record
from iufbench.reporting.store import load_run
from iufbench.support.errors import RunError

ROOT = Path(__file__).resolve().parent.parent
NEEDED = {
    "format": 1,
    "id": "visa/visa_2_1/iuf/0a1b2c3d/seed3",
    "status": "complete",
    "recipe_hash": "0a1b2c3d",
    "seed": 3,
    "dataset": {"name": "visa", "synthetic": False, "fingerprint": "f00d"},
    "protocol": {"id": "visa_2_1", "experiences": [["candle", "capsules"], ["cashew"]]},
    "strategy": {"name": "iuf"},
}


def changed(key: str, value: object) -> dict:
    """NEEDED with one dotted key replaced."""
    plain = json.loads(json.dumps(NEEDED))
    *path, last = key.split(".")
    place = plain
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    return plain


def test_what_is_written_comes_back(tmp_path):
    record = read_record(make_run(tmp_path / "one"))
    write_record(tmp_path / "two", record)
    assert read_record(tmp_path / "two") == record


def test_a_file_with_the_needed_keys_alone_is_read():
    record = record_from(NEEDED, "run.json")
    assert record.complete and record.dataset.label == "visa" and record.costs.bytes_kept == []
    assert record.seconds.train != record.seconds.train  # not recorded
    assert record_from(record.as_dict(), "run.json").as_dict() == record.as_dict()


def test_keys_of_a_later_version_are_kept_or_ignored():
    record = record_from({**changed("dataset.weather", "rain"), "mood": [1, {"a": None}]}, "run.json")
    assert record.as_dict()["mood"] == [1, {"a": None}]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("seed", "3", "seed: expected `int`, got `str`"),
        ("seed", True, "seed: expected `int`, got `bool`"),
        ("dataset", ["visa"], "dataset: expected `object`, got `array`"),
        ("protocol.experiences", [["candle"], [1]], "protocol.experiences[1][0]: expected `str`"),
        ("protocol.experiences", [["candle"], []], "protocol.experiences must be a list of non-empty lists"),
        (
            "protocol.experiences",
            [["candle"], ["candle"]],
            "protocol.experiences must name every object once",
        ),
        ("costs.peak_memory_mb", {}, "costs.peak_memory_mb: expected `float | null`"),
        ("environment.packages", {"torch": 2}, "environment.packages"),
        ("summary", {"image": {"acc": "high"}}, "summary"),
        ("strategy.name", "a/b", "cannot be a folder name"),
        ("strategy.name", "other", "its own fields say"),
        ("format", 2, "format 2; this iufbench reads format 1"),
    ],
)
def test_a_wrong_type_names_file_and_key(key, value, reason):
    with pytest.raises(RunError, match=re.escape(reason)) as caught:
        record_from(changed(key, value), "some/run.json")
    assert str(caught.value).startswith("some/run.json: ")


def test_a_missing_key_is_named():
    plain = {k: v for k, v in NEEDED.items() if k != "dataset"}
    with pytest.raises(RunError, match="missing required field `dataset`"):
        record_from(plain, "run.json")


def test_a_run_shows_its_record_as_plain_values(tmp_path):
    run = load_run(make_run(tmp_path))
    assert run.info == json.loads((run.path / "run.json").read_text())
    assert isinstance(run.record, RunRecord)


def test_the_library_reads_run_json_through_the_record():
    """Keys of run.json are defined in one place: no code indexes the plain values."""
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in (ROOT / "iufbench").rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"(?<!image\.)\binfo(\[['\"]|\.get\(['\"])", line) and "known.get" not in line
    ]
    assert not found
