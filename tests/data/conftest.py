"""A server, and a data set whose official archive is on it."""

from __future__ import annotations

import pytest
from download_site import OBJECTS, TINY, Site, sha256

from iufbench.cards.datasets import DataSetCard


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def card(site):
    """A data set whose official archive is on the server."""
    site.content = TINY
    count = {"train": 1, "test_good": 1, "test_defective": 1}
    download = {"url": site.url, "archive": "tiny.tar", "bytes": len(TINY), "sha256": sha256(TINY)}
    return DataSetCard(
        "tiny", "Tiny", "mvtec", OBJECTS, counts=dict.fromkeys(OBJECTS, count), licence="CC0",
        home="https://example.org/tiny", download=download,
    )  # fmt: skip
