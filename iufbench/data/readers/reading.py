"""Shared code of all readers: listing folders, choosing objects, validating paths in lists."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from iufbench.data.samples import SPLITS, Sample
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import open_file
from iufbench.support.names import alike, problem_with_name

SYNTHETIC_MARKER = "SYNTHETIC.json"  # in the root of a data set that was made
NORMAL = ("good", "ok")  # names of folders with normal images
# Words that make another folder name look like one of these, whatever surrounds them.
NORMAL_WORDS = frozenset(
    {"good", "goods", "ok", "okay", "normal", "normals", "nominal", "regular", "pass", "passed", "passing",
     "accept", "accepted", "acceptable", "clean", "healthy", "negative", "negatives", "perfect", "unbroken",
     "io", "intact", "gut", "normalgood", "goodnormal", "\u6b63\u5e38", "\u826f\u54c1", "\u5408\u683c"}
)  # fmt: skip
_FAULT = r"(?:defect(?:s|ive)?|anomal(?:y|ies|ous)|fault(?:s|y)?|flaw(?:s|ed)?|damaged?|errors?)"
FAULTLESS = re.compile(rf"(?:no|non|not|un|without){_FAULT}|{_FAULT}(?:free|less)")  # no_defect, flawless
# Words of folders that hold masks, not images of a defect.
MASK_WORDS = frozenset(
    {"mask", "masks", "groundtruth", "groundtruths", "gt", "label", "labels", "annotation", "annotations",
     "segmentation", "segmentations"}
)  # fmt: skip
FILLERS = frozenset({"test", "train", "image", "images", "img", "imgs", "sample", "samples", "part", "parts"})
MAX_LIST = 2**28  # bytes of a list of images; those of Real-IAD's 150,000 images take about 70 million
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
# Files next to images that are not images: texts, annotations, lists, checksums, backups.
SKIPPED_SUFFIXES = frozenset(
    {".txt", ".md", ".rst", ".pdf", ".html", ".htm", ".log", ".json", ".jsonl", ".ndjson", ".geojson", ".xml",
     ".xmp", ".aae", ".ann", ".names", ".lst", ".csv", ".tsv", ".xlsx", ".yaml", ".yml", ".toml", ".ini",
     ".cfg", ".info", ".db", ".lnk", ".url", ".md5", ".sha1", ".sha256", ".sha512", ".bak", ".orig"}
)  # fmt: skip
TEXTS = frozenset({"readme", "license", "licence", "copying", "authors", "notice"})  # without a suffix
# Files and folders of systems and tools: macOS, Windows, ext4, Android, Synology, QNAP, NetApp, CVS,
# Python, Node.
LITTER = frozenset(
    {"__macosx", "icon\r", "network trash folder", "temporary items", "thumbs.db", "ehthumbs.db",
     "desktop.ini", "$recycle.bin", "$extend", "recycler", "recycled", "system volume information",
     "msocache", "wpsettings.dat", "indexervolumeguid", "lost+found", "lost.dir", "@eadir", "@tmp",
     "@sharebin", "@appstore", "@docker", "#recycle", "#snapshot", "~snapshot", "@recycle",
     "@recently-snapshot", "@__thumb", "cvs", "__pycache__", "node_modules"}
)  # fmt: skip
LITTER_PATTERN = re.compile(
    r"\.|~\$|.*~$|found\.\d{3}$", re.DOTALL
)  # hidden, of an open document, backup, chkdsk


def require_root(root: str | os.PathLike[str], name: str) -> Path:
    """The data root as a path. Raises InputError with instructions if it is not a folder."""
    path = Path(root)
    if path.is_dir():
        return path
    wrong = "is not a folder" if path.exists() else "does not exist"
    raise InputError(
        f"data root {path} {wrong}: unpack the data set {name!r} there, choose another folder, "
        f"or use --synthetic for generated images"
    )


def contents(folder: Path, skipped: list[Path] | None = None) -> tuple[list[Path], list[Path]]:
    """(files, folders) in a folder, each sorted by name.

    Skipped, and appended to ``skipped``: hidden names (``.DS_Store``, ``._000.png``), system files
    (``Thumbs.db``, ``@eaDir``, ``$RECYCLE.BIN``, ``lost+found``), and texts and annotations next to images
    (``SKIPPED_SUFFIXES``), which many data sets have in their folders.
    """
    files, folders = [], []
    left_out = [] if skipped is None else skipped
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                lower = entry.name.lower()
                if lower in LITTER or LITTER_PATTERN.match(lower):
                    left_out.append(path)
                elif _is_folder(entry, path):
                    folders.append(path)
                elif path.suffix.lower() in SKIPPED_SUFFIXES or lower in TEXTS:
                    left_out.append(path)
                else:
                    files.append(path)
    except FileNotFoundError as error:
        raise InputError(f"folder {folder} is missing: is the data set unpacked completely?") from error
    except OSError as error:
        raise InputError(f"cannot read folder {folder}: {error.strerror}") from error
    return sorted(files), sorted(folders)


def _is_folder(entry: os.DirEntry[str], path: Path) -> bool:
    """Whether an entry is a folder. InputError for a pipe, a device and a link that leads to itself."""
    try:
        if (
            entry.is_dir() or entry.is_file() or not path.exists()
        ):  # what is missing is reported when it is read
            return entry.is_dir()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    raise InputError(f"{path} is not a regular file: remove it from the data set")


def images_in(folder: Path, skipped: list[Path] | None = None) -> list[Path]:
    """The image files of a folder, sorted. Raises InputError naming a file that is neither image nor skipped.

    ``skipped`` as in ``contents``.
    """
    files, folders = contents(folder, skipped)
    if folders:
        raise InputError(f"unexpected folder {folders[0]}: only images belong in {folder}")
    return require_images(files)


def require_images(files: list[Path]) -> list[Path]:
    """Returns the files. Raises InputError, with their number, if some do not have an image suffix."""
    others = [file for file in files if file.suffix.lower() not in IMAGE_SUFFIXES]
    if others:
        more = f" (and {len(others) - 1} more in this folder)" if len(others) > 1 else ""
        raise InputError(
            f"{others[0]} is not an image file ({', '.join(sorted(IMAGE_SUFFIXES))}){more}: "
            f"remove it from the data set"
        )
    return files


def skipped_note(base: Path, skipped: Sequence[Path]) -> tuple[str, ...]:
    """A note for ``DataSet.notes`` about files skipped below ``base``; empty if there are none."""
    skipped = [path for path in skipped if path != base / SYNTHETIC_MARKER]
    if not skipped:
        return ()
    one = min(skipped).relative_to(base).as_posix()
    names = "1 file or folder that is not an image" if len(skipped) == 1 else (
        f"{len(skipped)} files and folders that are not images"
    )  # fmt: skip
    return (f"{names}, skipped: {'' if len(skipped) == 1 else 'such as '}{one}",)


def unused_note(base: Path, paths: Sequence[Path]) -> tuple[str, ...]:
    """A note about masks of no image and folders that the layout does not have; empty if there are none."""
    if not paths:
        return ()
    one = min(paths).relative_to(base).as_posix()
    more = "" if len(paths) == 1 else f" and {len(paths) - 1} more"
    return (f"not used: {one}{more} (masks of no defective image, folders outside of the layout)",)


def is_normal(folder: Path, good: Sequence[str] = ()) -> bool:
    """Whether a folder holds normal images: good, ok or one of ``good``.

    Raises InputError for a similar name that is none of these (normal, Good, OK, good2): treated as a defect
    type it would silently give wrong results.
    """
    if folder.name in NORMAL or folder.name in good:
        return True
    if looks_normal(folder.name):
        raise InputError(
            f"{folder} looks like a folder of normal images, but only {' and '.join(NORMAL)} count as "
            f"such: rename it, or accept it with --good-name {shlex.quote(folder.name)}"
        )
    return False


def looks_normal(name: str) -> bool:
    """Whether a name means normal images, in whatever words.

    >>> looks_normal("Good"), looks_normal("test_normal"), looks_normal("no_defect"), looks_normal("not_ok")
    (True, True, True, False)
    """
    joined = _essence(name)
    return joined in NORMAL_WORDS or FAULTLESS.fullmatch(joined) is not None


def require_no_masks(folder: Path) -> None:
    """Raise InputError for a folder that looks like masks, but is not named ``ground_truth``."""
    if folder.name != "ground_truth" and _essence(folder.name) in MASK_WORDS:
        raise InputError(
            f"{folder} looks like a folder of masks: rename it to ground_truth, with a folder for each kind "
            "of defect in it, or move it away"
        )


def _essence(name: str) -> str:
    words = re.findall(r"[^\W\d_]+", name.casefold())
    return "".join(word for word in words if word not in FILLERS)


def shown_names(names: Sequence[str]) -> str:
    """Names separated by commas; of many, the first ones and the number of the others."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in names[:20]) + more


def require_object_name(name: str, where: str) -> None:
    """Raise InputError, with the rule, if a name cannot be used for an object (and its files and columns)."""
    rule = problem_with_name(name)
    if rule is not None:
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        raise InputError(f"{where}: {shown!r} cannot name an object: rename it; the rule: {rule}")


def choose_objects(found: Iterable[str], wanted: Sequence[str] | None, where: Path) -> tuple[str, ...]:
    """The wanted objects in the given order, or all present ones sorted by name if None.

    Raises InputError for an object that does not exist (with the existing ones and the closest name), for a
    repeated object and for an empty choice.
    """
    present = sorted(set(found))
    if not present:
        raise InputError(f"{where} contains no objects: is this the data set's root?")
    for name in present if wanted is None else set(wanted) & set(present):
        require_object_name(name, str(where))
    pair = alike(present if wanted is None else wanted)
    if pair and set(pair) <= set(present):
        raise InputError(
            f"{where}: the objects {pair[0]!r} and {pair[1]!r} differ only in case, in the composition of "
            "letters, or in '_' and spaces: rename one"
        )
    if wanted is None:
        return tuple(present)
    if not wanted:
        raise InputError(f"no objects requested: {where} has {shown_names(present)}")
    for k, name in enumerate(wanted):
        if name in wanted[:k]:
            raise InputError(f"object {name!r} is requested twice")
    missing = [name for name in wanted if name not in present]
    if missing:
        for name in present:  # "a,b", which --order takes for two names
            if name not in wanted and set(name.split(",")) <= {*missing, name}:
                require_object_name(name, str(where))
        near = difflib.get_close_matches(missing[0], present, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"{where} lacks {len(missing)} of {len(wanted)} objects: {shown_names(missing)}; "
            f"{hint}there are {len(present)}: {shown_names(present)}"
        )
    return tuple(wanted)


def path_below(root: Path, text: str, where: str) -> Path:
    """root / text for a relative path in a list. Raises InputError if it would leave the root."""
    # Windows rules cover both separators and drives, so lists are checked alike on every system.
    parts = PureWindowsPath(text)
    if not text.strip() or parts.anchor or text.startswith("~") or ".." in parts.parts:
        shown = text if len(text) <= 200 else f"{text[:197]}..."
        raise InputError(f"{where}: {shown!r} is not a relative path below the data root")
    if any(len(part) > 255 for part in parts.parts) or len(text) > 4000 or "\0" in text:
        raise InputError(
            f"{where}: {text[:60]!r}... cannot be a file: a name in it is too long or has a null byte"
        )
    return root / Path(*parts.parts)


def hashed_order(names: Iterable[str], salt: str) -> list[str]:
    """Names sorted by sha256(salt + name), which does not depend on machine, version or other names."""
    return sorted(names, key=lambda n: hashlib.sha256((salt + n).encode("utf-8", "surrogateescape")).digest())


def read_list(path: Path) -> str:
    """The text of a list of images, links followed. InputError if it is too large or not a text file."""
    try:
        with open_file(os.path.realpath(path), MAX_LIST) as file:
            return file.read().decode("utf-8-sig")
    except (OSError, RunError, UnicodeDecodeError) as error:
        raise InputError(f"list {path} cannot be read: {error}") from error


class FileList:
    """Collects the files named in a list and reports all missing ones together."""

    def __init__(self) -> None:
        self._named: dict[Path, str] = {}

    def add(self, path: Path, where: str) -> Path:
        """Add a file. Raises InputError if it has been added before."""
        if path in self._named:
            raise InputError(f"{where}: {path} is already listed at {self._named[path]}")
        self._named[path] = where
        return path

    def require_all(self) -> None:
        """Raise InputError naming the first missing file, with the number of all missing files."""
        missing = [(path, where) for path, where in self._named.items() if not os.path.isfile(path)]
        if missing:
            path, where = missing[0]
            more = f" ({len(missing)} of {len(self._named)} listed files are missing)"
            raise InputError(f"{where}: {path} does not exist{more}: is the data set unpacked completely?")


def in_order(samples: Iterable[Sample], objects: Sequence[str]) -> tuple[Sample, ...]:
    """Samples in the order of objects, then training, validation and test, then file path."""
    rank = {name: place for place, name in enumerate(objects)}
    return tuple(sorted(samples, key=lambda s: (rank[s.object], SPLITS.index(s.split), s.image.as_posix())))


def require_both_splits(samples: Sequence[Sample], objects: Sequence[str], where: str) -> None:
    """Raise InputError unless every object has at least one training and one test image."""
    present = {(s.object, s.split) for s in samples}
    for name in objects:
        for split in ("train", "test"):
            if (name, split) not in present:
                raise InputError(f"{where}: no {split} image of object {name!r}")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields. Raises ValueError for duplicate keys, which JSON itself permits."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key '{next(n for n in names if names.count(n) > 1)}'")
    return fields
