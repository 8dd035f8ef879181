"""docs/verdicts.md: regenerated from the published curves, and its arithmetic by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from iufbench.reporting.literature import published
from iufbench.reporting.verdicts import FROZEN, LEARNT, LOST, Implied, curve_of, implied, page

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_published_curves_give():
    assert (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8") == page(published())


def test_visa_8_1_with_4_steps_by_hand():
    """Such as (9 * 84.39 - 8 * 87.70) / 1 and (12 * 65.70 - 8 * 87.70) / 4."""
    found = implied(curve_of(published(), "visa_8_1x4", "image"))
    assert [point.value for point in found] == pytest.approx([57.91, 53.75, 60.2, 21.7], abs=0.01)
    assert [point.verdict for point in found] == [FROZEN, FROZEN, FROZEN, LOST]


@pytest.mark.parametrize(
    ("value", "error", "verdict"), [(66, 2, FROZEN), (66, 0.5, LEARNT), (34, 2, FROZEN), (34, 0.5, LOST)]
)
def test_the_band_around_chance(value, error, verdict):
    assert Implied(10, 80.0, value, error).verdict == verdict


def test_every_protocol_of_the_paper_has_a_verdict():
    text = page(published())
    for _, title in published().protocols.values():
        assert text.count(f", {title} |") >= 2
