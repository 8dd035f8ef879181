"""Checks that a strategy does not learn during evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from iufbench.support.errors import RunError
from iufbench.support.nested import differing, digest, flat


@contextmanager
def untouched(strategy: Any) -> Iterator[None]:
    """Context manager for evaluation: the state that the next experience depends on must not change.

    Raises RunError naming the part of ``strategy.state()`` that has changed: results of a learner that learns
    from test images would be invalid.
    """
    before = _digests(strategy)
    yield
    changed = differing(before, _digests(strategy))
    if changed:
        raise RunError(f"the strategy's state changed during evaluation: {min(changed)}")


def _digests(strategy: Any) -> dict[str, str]:
    return {name: digest(value) for name, value in flat(strategy.state()).items()}
