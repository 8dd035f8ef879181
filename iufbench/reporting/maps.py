"""Kept anomaly maps of a run, and the images they belong to. Without torch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from iufbench.cards.request import Request
from iufbench.data.requested import requested_data, requested_protocol
from iufbench.data.samples import DataSet
from iufbench.reporting.store import Run
from iufbench.support.errors import RunError
from iufbench.support.files import write_bytes

MAPS = "maps"


def maps_path(run: Path, experience: int, object_name: str) -> Path:
    """Where the maps of one object after one experience are kept."""
    return run / MAPS / f"experience{experience}" / f"{object_name}.npz"


def write_maps(path: Path, maps: np.ndarray, images: Sequence[str]) -> Path:
    """Keep maps [N, S, S] as float16 with the names of their images [N], compressed."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, maps=maps.astype(np.float16), images=np.array(images))
    return write_bytes(path, buffer.getvalue())


def read_maps(run: Run, experience: int, object_name: str) -> dict[str, np.ndarray]:
    """Image name -> map [S, S] float32 of one object after one experience.

    Raises RunError, with the command that keeps them, when they cannot be read.
    """
    path = maps_path(run.path, experience, object_name)
    try:
        with np.load(path, allow_pickle=False) as stored:
            maps, images = stored["maps"].astype(np.float32), stored["images"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path} is damaged ({reason}); {how_to_keep(run, [object_name])}") from error
    if maps.ndim != 3 or images.shape != maps.shape[:1]:
        raise RunError(f"{path} is damaged (its arrays do not fit); {how_to_keep(run, [object_name])}")
    return dict(zip(map(str, images), maps))


def how_to_keep(run: Run, objects: Sequence[str] = ()) -> str:
    """The command that makes the maps of a run without training."""
    some = f" --objects {','.join(objects)}" if objects else ""
    return f"keep them with: iufbench evaluate {run.path} --save-maps{some}"


def images_of(run: Run) -> DataSet:
    """The data set a run was made from, opened again where ``run.json`` says it lies.

    Raises InputError when it is not there, RunError when it is not the same any more.
    """
    if not run.record.request:
        raise RunError(f"{run.path}: run.json does not say where its images lie; run it anew")
    request = Request.from_dict(run.record.request)
    dataset = requested_data(request, requested_protocol(request), progress=False)
    if dataset.fingerprint() != run.record.dataset.fingerprint:
        raise RunError(f"{run.path} was made from other data than {dataset.root} holds now")
    bits = run.record.dataset.decoding.get("bits", dataset.decoding.bits)
    return replace(dataset, decoding=replace(dataset.decoding, bits=bits))
