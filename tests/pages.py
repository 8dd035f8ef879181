"""HTML pages in tests: parsed, and in a browser."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.rows = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        if tag == "tr" and "data-kind" in found:
            self.rows.append(found)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def eventually(condition, seconds=20.0):
    """Wait for a page that a busy machine redraws late."""
    from time import monotonic, sleep

    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end, "the page did not change"
        sleep(0.05)
