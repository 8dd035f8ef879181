"""Saved anomaly maps of a run, and the images they belong to. Without torch."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy

from iufbench.cards.request import Request
from iufbench.data.requested import requested_data, requested_protocol
from iufbench.data.samples import DataSet
from iufbench.reporting.record import INFO
from iufbench.reporting.store import Run
from iufbench.support.errors import RunError
from iufbench.support.files import open_file, write_bytes

MAPS = "maps"
MAX_FILE, MAX_NAMES, MAX_SIDE = 2**30, 2**25, 2048  # bytes, bytes, values


def maps_path(run: Path, experience: int, object_name: str) -> Path:
    """The file with the maps of one object after one experience."""
    return run / MAPS / f"experience{experience}" / f"{object_name}.npz"


def write_maps(path: Path, maps: np.ndarray, images: Sequence[str]) -> Path:
    """Save maps [N, S, S] as float16 with the names of their images [N], compressed."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, maps=maps.astype(np.float16), images=np.array(images))
    return write_bytes(path, buffer.getvalue())


def read_maps(run: Run, experience: int, object_name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield image name and map [S, S] float16 of one object after one experience.

    Reads one image at a time: memory does not grow with the file. Raises RunError with the command that
    recreates the maps if they cannot be read.
    """
    path = maps_path(run.path, experience, object_name)
    try:
        with open_file(path, MAX_FILE) as file:
            yield from _unpacked(file)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, RuntimeError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path} is corrupted ({reason}); {how_to_keep(run, [object_name])}") from error


def _unpacked(file: BinaryIO) -> Iterator[tuple[str, np.ndarray]]:
    """Unpack the content written by ``write_maps``. Raises ValueError for other or too large arrays."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 42))
    end = file.read()[-42:]  # of a zip archive: the list of members, which ZipFile reads at once
    if end[-22:-18] != b"PK\5\6" or end[:4] == b"PK\6\7" or int.from_bytes(end[-10:-6], "little") > 1024:
        raise ValueError("not an archive of maps")
    with ZipFile(file) as packed, _array(packed, "images") as (stream, shape, dtype):
        (count,) = shape if len(shape) == 1 else (0,)
        if dtype.kind != "U" or count * dtype.itemsize > MAX_NAMES:
            raise ValueError("it has no image names")
        names = np.frombuffer(_exactly(stream, count * dtype.itemsize), dtype)
        with _array(packed, "maps") as (stream, shape, dtype):
            if len(shape) != 3 or shape[0] != count or dtype != np.float16:
                raise ValueError("its arrays are inconsistent")
            size = shape[1] * shape[2] * dtype.itemsize
            if max(count, 1) * size > MAX_FILE or shape[1] > MAX_SIDE or shape[2] > MAX_SIDE:
                raise ValueError(f"maps of {shape[1]}x{shape[2]} values for {count} images are too large")
            for name in names:
                yield str(name), np.frombuffer(_exactly(stream, size), dtype).reshape(shape[1:])


@contextmanager
def _array(packed: ZipFile, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """Read a member of an ``.npz`` file after its header, which states shape and type."""
    member = packed.getinfo(f"{name}.npy")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError("unknown compression")
    with packed.open(member) as stream:
        version = npy.read_magic(stream)  # type: ignore[arg-type]
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)  # type: ignore[arg-type]
        if fortran or any(n < 0 for n in shape):
            raise ValueError("its arrays are inconsistent")
        yield stream, shape, dtype


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("it is truncated")
    return data


def usual_value(maps: Iterable[np.ndarray]) -> float:
    """Median of all values of float16 maps, as by ``np.median`` in float32; 0 without maps.

    The 65,536 possible float16 values are counted, so memory does not grow with the number of maps.
    """
    counts = np.zeros(2**16, dtype=np.int64)
    for one in maps:
        counts += np.bincount(one.view(np.uint16).ravel(), minlength=2**16)
    values = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    order = np.argsort(values)  # NaN last
    ends = np.cumsum(counts[order])
    if not ends[-1]:
        return 0.0
    middle = [int(np.searchsorted(ends, k, side="right")) for k in ((ends[-1] - 1) // 2, ends[-1] // 2)]
    return float(np.mean(values[order][middle]))


def how_to_keep(run: Run, objects: Sequence[str] = ()) -> str:
    """The command that creates the maps of a run without training."""
    some = f" --objects {','.join(objects)}" if objects else ""
    return f"save them with: iufbench evaluate {run.path} --save-maps{some}"


def images_of(run: Run) -> DataSet:
    """Open the data set of a run again, at the location in ``run.json``.

    Raises InputError if it is not there, RunError if it has changed.
    """
    if not run.record.request:
        raise RunError(f"{run.path}: run.json has no location of its images; run it again")
    request = Request.from_dict(run.record.request, run.path / INFO)
    dataset = requested_data(request, requested_protocol(request), progress=False)
    if dataset.fingerprint() != run.record.dataset.fingerprint:
        raise RunError(f"{run.path} was run on different data than {dataset.root} has now")
    bits = run.record.dataset.decoding.get("bits", dataset.decoding.bits)
    return replace(dataset, decoding=replace(dataset.decoding, bits=bits))
