"""What a strategy is shown in evaluation does not teach it anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from iufbench.support.errors import RunError
from iufbench.support.nested import differing, digest, flat


@contextmanager
def untouched(strategy: Any) -> Iterator[None]:
    """Evaluate inside of this: the state that the next experience depends on must not change meanwhile.

    Raises RunError naming the part of ``strategy.state()`` that has changed: a learner that learns from test
    images has no result.
    """
    before = _digests(strategy)
    yield
    changed = differing(before, _digests(strategy))
    if changed:
        raise RunError(f"the strategy learnt while it was evaluated: {min(changed)} of its state has changed")


def _digests(strategy: Any) -> dict[str, str]:
    return {name: digest(value) for name, value in flat(strategy.state()).items()}
