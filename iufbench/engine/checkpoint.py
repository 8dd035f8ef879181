"""Checkpoints: one file per trained experience, and one from inside the current experience.

Each is written to a temporary file, flushed and renamed; then its SHA-256 is added to the manifest, written
the same way. Only files with the hash in the manifest are valid, and loading unpickles tensors and plain
values only. Random states between experiences are not stored, because every experience starts from its own
derived seed.

The manifest also has the SHA-256 of the rows of every experience in the result files (``VOUCHED``). Rows are
written before it: rows of experiences that are not in the manifest were left by a kill and are replaced.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch

from iufbench.evaluation.loggers import FOLDERS as LOG_FOLDERS
from iufbench.reporting.maps import MAPS
from iufbench.reporting.record import INFO, read_record
from iufbench.reporting.rundir import (
    BASELINE,
    CALIBRATION,
    EPOCH_STATES,
    METRICS,
    SCORES,
    SELECTION,
    TRAIN_LOG,
    experience_digests,
)
from iufbench.support.errors import RunError
from iufbench.support.files import open_file, read_json, write_bytes, write_json
from iufbench.support.memory import lacks_memory

FOLDER, MANIFEST = "checkpoints", "manifest.json"
VOUCHED = (
    METRICS,
    SCORES,
    TRAIN_LOG,
    BASELINE,
    SELECTION,
    CALIBRATION,
)  # result files
MAX_MANIFEST, MAX_CHECKPOINT = 2**24, 2**40  # bytes
EVERY = 60.0  # seconds between two files from inside an experience ...
SHARE = 50  # ... or this multiple of the time the last one took to write, if that is longer


@dataclass
class _Manifest:
    """``manifest.json``: hashes of files and of the rows of every experience, how many are evaluated, and the
    id of the run ("" in older files)."""

    files: dict[str, str]
    evaluated: Annotated[int, msgspec.Meta(ge=0)]
    records: dict[str, list[str]] = field(default_factory=dict)
    run: str = ""


def checkpoint_path(run: Path, experience: int) -> Path:
    """The file with the state after training ``experience`` (from 0)."""
    return run / FOLDER / f"experience{experience}.pt"


def trained_experiences(run: Path) -> int:
    """Number of consecutive experiences, from the first, with a checkpoint."""
    files, number = _manifest(run)["files"], 0
    while checkpoint_path(run, number).name in files:
        number += 1
    return number


def evaluated_experiences(run: Path) -> int:
    """Number of consecutive experiences, from the first, with recorded results."""
    return _manifest(run)["evaluated"]


def save_checkpoint(run: Path, experience: int, strategy: Any) -> None:
    """Store ``strategy.state()``: tensors, numbers, text, lists and dicts.

    The training log of the experience must have been written. The state from inside the experience is
    removed. Raises RunError if writing fails.
    """
    manifest = _vouching(run, {TRAIN_LOG: experience + 1})
    files = {n: h for n, h in manifest["files"].items() if not _is_within(n)}
    path = checkpoint_path(run, experience)
    _write(run, {**manifest, "files": files}, path.name, strategy.state())


def record_evaluated(run: Path, experiences: int) -> None:
    """Record in the manifest that this many experiences have been evaluated; 0: only the baseline.

    Raises RunError if the results of earlier experiences have changed.
    """
    rows = dict.fromkeys((METRICS, SCORES), experiences)
    if (run / BASELINE).is_file():
        rows[BASELINE] = 1
    for name in (SELECTION, CALIBRATION):
        if (run / name).is_file():
            rows[name] = experiences
    _write_manifest(run, {**_vouching(run, rows), "evaluated": experiences})


def check_records(run: Path, complete: int | None = None) -> None:
    """Compare the result files with the manifest, for the experiences that it lists.

    ``complete``: required number of experiences. Raises RunError with the file that is missing or has
    changed, and the experience.
    """
    manifest, trained, evaluated = _manifest(run), trained_experiences(run), evaluated_experiences(run)
    if complete is not None and min(trained, evaluated) < complete:
        raise RunError(
            f"{run}: only {min(trained, evaluated)} of {complete} experiences are recorded; --restart "
            "repeats the stream"
        )
    for name, least in ((METRICS, evaluated), (SCORES, evaluated), (TRAIN_LOG, trained)):
        if len(manifest["records"].get(name, ())) < least:
            raise RunError(f"{run / FOLDER / MANIFEST} has no hash of {name}; --restart repeats the stream")
    _vouching(run, {name: len(digests) for name, digests in manifest["records"].items()})


def load_checkpoint(run: Path, experience: int, strategy: Any) -> None:
    """Restore the state of a strategy after ``experience``. Raises RunError if the file is corrupted."""
    try:
        _load(run, checkpoint_path(run, experience).name, strategy.device, strategy.restore)
    except RunError as error:
        raise RunError(f"{error}; --restart repeats the stream") from error


def checkpoint_sha256(run: Path, experience: int) -> str:
    """The hash of the state after ``experience``. Raises RunError if the file is missing or corrupted."""
    return hashlib.sha256(_vouched(run, checkpoint_path(run, experience).name)).hexdigest()


def is_finished(run: Path, experience: int) -> bool:
    """Whether ``experience`` (from 0) was trained and evaluated and has a checkpoint."""
    return experience < min(trained_experiences(run), evaluated_experiences(run))


def copy_checkpoint(donor: Path, run: Path, experience: int) -> None:
    """Copy the checkpoint of a finished experience from another run, whose rows have been copied.

    Raises RunError if it is corrupted, or the rows differ from those in the donor's manifest.
    """
    name = checkpoint_path(donor, experience).name
    data = _vouched(donor, name)
    write_bytes(run / FOLDER / name, data)
    files = {**_manifest(run)["files"], name: hashlib.sha256(data).hexdigest()}
    told = _manifest(donor)["records"]
    names = (METRICS, SCORES, TRAIN_LOG, *((CALIBRATION,) if CALIBRATION in told else ()))
    records = {key: told.get(key, [])[: experience + 1] for key in names}
    _write_manifest(run, {"files": files, "evaluated": experience + 1, "records": records})
    check_records(run)


def save_within(run: Path, experience: int, strategy: Any, seconds: float) -> None:
    """Store ``strategy.state_within()``; ``seconds``: training time of the experience so far."""
    manifest, state = _manifest(run), strategy.state_within()
    # Never the name of the valid file: a kill before the manifest is written leaves that one.
    name = f"within{experience}_{state['clock']['train_exp_epochs']}.pt"
    files = {n: h for n, h in manifest["files"].items() if not _is_within(n)}
    _write(run, {**manifest, "files": files}, name, {"seconds": seconds, "state": state})


def load_within(run: Path, experience: int, device: torch.device) -> dict[str, Any] | None:
    """Load ``seconds`` and ``state`` as stored by ``save_within``; None if there is none.

    Raises RunError if the file is corrupted; it is ignored afterwards.
    """
    found: dict[str, Any] = {}
    for name in _manifest(run)["files"]:
        if name.startswith(f"within{experience}_"):
            try:
                _load(run, name, device, found.update)
            except RunError:
                manifest = _manifest(run)
                del manifest["files"][name]
                _write_manifest(run, manifest)
                raise
    return found or None


def remove_state(run: Path) -> None:
    """Remove the state of an earlier training from a run directory: checkpoints, maps, logs, baselines."""
    for folder in (FOLDER, MAPS, EPOCH_STATES, *LOG_FOLDERS):
        if (run / folder).is_dir():
            shutil.rmtree(run / folder)
    for name in (BASELINE, SELECTION, CALIBRATION):
        (run / name).unlink(missing_ok=True)


def tidy(run: Path) -> None:
    """Remove incomplete files of a killed process. Only to be called while the run is ``claimed``."""
    for path in run.rglob(".*.tmp"):
        path.unlink(missing_ok=True)
    vouched = _manifest(run)["files"]
    for path in (run / FOLDER).glob("*.pt"):
        if path.name not in vouched:
            path.unlink()


class Saver:
    """Called after every epoch of an experience; stores the state inside it when due.

    ``epochs``: after every so many epochs; None: about once a minute, and for at most 2% of the time.
    ``seconds``: training time of the experience in earlier processes.
    """

    def __init__(self, run: Path, experience: int, strategy: Any, epochs: int | None, seconds: float) -> None:
        self._run, self._experience, self._strategy = run, experience, strategy
        self._epochs = epochs
        self._start = time.monotonic() - seconds
        self._next = time.monotonic() + EVERY

    def __call__(self) -> None:
        if not self._is_time():
            return
        clock = time.monotonic()
        save_within(self._run, self._experience, self._strategy, clock - self._start)
        now = time.monotonic()
        self._next = now + max(EVERY, SHARE * (now - clock))

    def _is_time(self) -> bool:
        if self._epochs is None:
            return time.monotonic() >= self._next
        return self._strategy.clock.train_exp_epochs % self._epochs == 0


def _is_within(name: str) -> bool:
    return name.startswith("within")


def _manifest(run: Path) -> dict[str, Any]:
    path = run / FOLDER / MANIFEST
    if not os.path.lexists(path):
        return {"files": {}, "evaluated": 0, "records": {}}
    try:
        manifest = msgspec.convert(read_json(path, MAX_MANIFEST), _Manifest)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise RunError(f"{path} is corrupted ({error}); --restart repeats the stream") from error
    own = _id(run)
    if manifest.run and own and manifest.run != own:
        raise RunError(
            f"{path} belongs to the run {manifest.run}, not to {own}: restore the checkpoints of this run, "
            "or --restart repeats the stream"
        )
    return msgspec.to_builtins(manifest)


def _write_manifest(run: Path, manifest: dict[str, Any]) -> None:
    write_json(run / FOLDER / MANIFEST, {**manifest, "run": _id(run)})


def _id(run: Path) -> str:
    return read_record(run).id if os.path.lexists(run / INFO) else ""


def _vouching(run: Path, rows: dict[str, int]) -> dict[str, Any]:
    """The manifest with the digests of the first experiences of some result files, by name.

    Raises RunError if it already has a different digest.
    """
    manifest = _manifest(run)
    records = dict(manifest["records"])
    for name in (name for name in VOUCHED if name in rows):
        path, told = run / name, records.get(name, [])
        try:
            found = experience_digests(path, rows[name])
        except RunError as error:
            raise RunError(f"{error}; --restart repeats the stream") from error
        for number, (before, now) in enumerate(zip(told, found), start=1):
            if before != now:
                fault = "has been changed in the rows of" if path.exists() else "is missing, with the rows of"
                raise RunError(
                    f"{path} {fault} experience {number} since they were recorded: restore the file, or "
                    "--restart repeats the stream"
                )
        records[name] = found
    return {**manifest, "records": records}


def _write(run: Path, manifest: dict[str, Any], name: str, content: Any) -> None:
    """Store ``content`` and a manifest with its hash; then remove files that are not in the manifest."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getbuffer()
    write_bytes(run / FOLDER / name, data)
    files = {**manifest["files"], name: hashlib.sha256(data).hexdigest()}
    _write_manifest(run, {**manifest, "files": files})
    for path in (run / FOLDER).glob("within*.pt"):
        if path.name not in files:
            path.unlink(missing_ok=True)


def _load(run: Path, name: str, device: torch.device, use: Any) -> None:
    """Pass the content of a file to ``use``. Raises RunError if it does not match the manifest or is
    unusable.
    """
    path, data = run / FOLDER / name, _vouched(run, name)
    try:
        use(torch.load(io.BytesIO(data), map_location=device, weights_only=True))
    except pickle.UnpicklingError as error:  # torch's message advises to execute the content of the file
        raise RunError(f"{path} is corrupted (no checkpoint)") from error
    except Exception as error:  # a state of other types and shapes may raise anything
        if lacks_memory(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(f"{path} is corrupted ({reason})") from error


def _vouched(run: Path, name: str) -> bytes:
    """The content of a file. Raises RunError if it does not match the manifest."""
    path = run / FOLDER / name
    expected = _manifest(run)["files"].get(name)
    if expected is None:
        raise RunError(f"{path}: it is not in the {MANIFEST} beside it")
    try:
        with open_file(path, MAX_CHECKPOINT) as file:
            data = file.read()
    except OSError as error:
        raise RunError(f"{path} is corrupted ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise RunError(f"{path} is corrupted (its SHA-256 is not that in {MANIFEST})")
    return data
