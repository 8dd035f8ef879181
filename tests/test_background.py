"""Calls in a background thread: order, exceptions, and nothing left behind."""

from __future__ import annotations

import threading

import pytest

from iufbench.support.background import OneBehind


class Wrong(Exception):
    pass


def fail():
    raise Wrong


def test_calls_are_in_order_and_not_in_the_caller():
    done = []
    with OneBehind() as behind:
        for number in range(20):
            behind.run(lambda number=number: done.append((number, threading.current_thread())))
            assert len(done) >= number  # at most one is unfinished
    assert [number for number, _ in done] == list(range(20))
    assert {thread for _, thread in done}.isdisjoint({threading.current_thread()})


def test_an_exception_is_raised_once_by_whatever_comes_next():
    done = []
    for following in (OneBehind.wait, lambda behind: behind.run(done.append, 1)):
        with OneBehind() as behind:
            behind.run(fail)
            with pytest.raises(Wrong):
                following(behind)
            behind.wait()
    assert done == []
    with pytest.raises(Wrong), OneBehind() as behind:
        behind.run(fail)


def test_an_exception_precedes_one_that_the_caller_raised_later():
    with pytest.raises(Wrong), OneBehind() as behind:
        behind.run(fail)
        raise ValueError


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_no_thread_and_is_not_replaced(kind):
    before, go, done = threading.active_count(), threading.Event(), []

    def late():
        go.wait(10)
        done.append(1)
        raise Wrong

    with pytest.raises(kind), OneBehind() as behind:
        behind.run(late)
        go.set()
        raise kind
    assert done == [1] and threading.active_count() == before
