"""Searches everything reachable from an object: attributes, containers, closures, views of memory.

Excluded on purpose: modules and the globals of functions (from ``sys.modules`` everything is reachable),
frames of the call stack and the garbage collector.
"""

from __future__ import annotations

import bisect
import gc
import itertools
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

OWN = ("iufbench", "test_no_peeking")  # whose classes may hold something; those of libraries do not

_LEAVES = (str, types.ModuleType, types.FrameType, types.CodeType)
_NOTHING = {bytes, int, float, complex, bool, type(None)}  # neither forbidden themselves nor leading further


def neighbours(thing: Any) -> Iterator[Any]:
    """The objects reachable in one step."""
    if isinstance(thing, types.FunctionType):  # not gc.get_referents: it would give the module's globals
        yield from (cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell))
        yield from thing.__defaults__ or ()
        yield from (thing.__kwdefaults__ or {}).values()
        yield thing.__dict__
        return
    if isinstance(thing, type):
        if thing.__module__.split(".")[0] in OWN:
            yield from (*thing.__mro__, *vars(thing).values())
        return
    if isinstance(thing, weakref.ReferenceType):
        yield thing()
    if isinstance(thing, torch.Tensor):
        yield from (thing.grad if thing.is_leaf else None, thing._base)
    if isinstance(thing, np.ndarray):
        yield thing.base
        if thing.dtype == object:
            yield from thing.flat
    if isinstance(thing, types.GeneratorType) and thing.gi_frame is not None:
        yield thing.gi_frame.f_locals
    yield from gc.get_referents(thing)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


Way = tuple[Any, Any]  # an object, and the way to what refers to it (None: it is a root)


def reachable(roots: Iterable[Any], without: Iterable[Any] = ()) -> Iterator[tuple[Any, Way]]:
    """Yield (object, way to it) for everything reachable from ``roots``, each once, but plain numbers."""
    barred = {id(thing) for thing in without}
    queue: list[tuple[Any, Any]] = [(root, (root, None)) for root in roots]
    seen, kept = set(barred), []
    while queue:
        thing, way = queue.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        kept.append(thing)  # an id stays taken as long as its object lives
        yield thing, way
        if not isinstance(thing, _LEAVES) and type(thing).__name__ != "cython_function_or_method":
            for n in neighbours(thing):
                if type(n) not in _NOTHING and id(n) not in seen:
                    queue.append((n, (n, way)))


def _path(way: Way | None) -> str:
    """The names of the types on the way, the root first."""
    names = []
    while way is not None:
        thing, way = way
        names.append(getattr(thing, "__qualname__", type(thing).__name__))
    return " > ".join(reversed(names))


class Treasure:
    """Forbidden objects: arrays by memory and content, objects by identity, words."""

    def __init__(self) -> None:
        self.memory: dict[int, str] = {}
        self.content: dict[bytes, str] = {}
        self.objects: dict[int, str] = {}
        self.words: dict[str, str] = {}
        self._alive: list[Any] = []
        self._clean: set[bytes] = set()  # contents of arrays that held nothing of it

    def object(self, thing: Any, what: str) -> None:
        self._alive.append(thing)
        self.objects[id(thing)] = what

    def array(self, array: Any, what: str) -> None:
        """An array or tensor, and any view of its memory."""
        self.object(array, what)
        self.memory[_memory(array)] = what

    def features(self, features: torch.Tensor, what: str) -> None:
        """Feature maps [N, C, h, w], and copies of them, by image or by patch."""
        self.array(features, what)
        for image in features:
            for piece in (image, image.flatten(1)[:, 0]):
                for form in (piece, piece.float()):
                    self.content[form.contiguous().numpy().tobytes()] = f"a copy of {what}"

    def found(self, roots: Iterable[Any], without: Iterable[Any] = ()) -> list[str]:
        """The reachable forbidden objects, with their paths."""
        own = [self, vars(self), *vars(self).values()]
        found, copies = [], {}
        shortest = min(map(len, self.content), default=0)
        for thing, way in reachable(roots, [*without, *own]):
            if what := self._what(thing):
                found.append((what, way))
            elif isinstance(thing, (torch.Tensor, np.ndarray)) and thing.dtype != object:
                array = thing.detach().cpu().numpy() if isinstance(thing, torch.Tensor) else thing
                data = b"" if array.nbytes < shortest else np.ascontiguousarray(array).tobytes()
                if data and data not in self._clean:
                    copies[data] = way
        found += [(what, copies[data]) for what, data in self._copied(list(copies))]
        return [f"{what}: {_path(way)}" for what, way in found]

    def _what(self, thing: Any) -> str:
        if id(thing) in self.objects:
            return self.objects[id(thing)]
        if isinstance(thing, str):
            return next((what for word, what in self.words.items() if word in thing), "")
        if not isinstance(thing, (torch.Tensor, np.ndarray)) or thing.dtype == object:
            return ""
        return f"a view of {self.memory[_memory(thing)]}" if _memory(thing) in self.memory else ""

    def _copied(self, arrays: list[bytes]) -> Iterator[tuple[str, bytes]]:
        """Yield (what it is, the array) for each array that holds forbidden content.

        All arrays are searched at once: most are small, and a search of each would cost its call.
        """
        ends = list(itertools.accumulate(map(len, arrays)))
        joined = b"".join(arrays)
        copies = {}
        for part, what in self.content.items():
            start = joined.find(part)
            while start >= 0:
                index = bisect.bisect_right(ends, start)
                if start + len(part) <= ends[index]:  # not across two arrays
                    copies.setdefault(arrays[index], what)
                    break
                start = joined.find(part, start + 1)
        if not copies:
            self._clean.update(arrays)
        yield from ((what, data) for data, what in copies.items())


def _memory(array: Any) -> int:
    """The memory that an array is a view of."""
    if isinstance(array, torch.Tensor):
        return array.untyped_storage().data_ptr()
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.ctypes.data
