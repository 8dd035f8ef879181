"""Shared fixtures: the published data sets' file trees, and a tiny synthetic VisA."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

if TYPE_CHECKING:
    from iufbench.reporting.store import Run

# A time limit per example would judge how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

FACTS = Path(__file__).parent / "data" / "facts"
GREY_OBJECTS = ("grid", "screw", "zipper")


def _bytes_of(pixels: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


class _Tree:
    """Writes each distinct content once; further files with the same content are hard links (17,000 in
    seconds).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._first: dict[bytes, Path] = {}
        self._folders: set[Path] = set()

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        if content in self._first:
            try:
                os.link(self._first[content], path)
                return
            except OSError:  # a file system without hard links, or with few of them
                pass
        path.write_bytes(content)
        self._first[content] = path


@pytest.fixture(scope="session")
def mvtec_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of all 5,354 images and 1,258 masks of MVTec AD with their real names. Read only: files are links.

    Images are 12x8 pixels, greyscale where the originals are; text files are where the originals have them.
    """
    tree = _Tree(tmp_path_factory.mktemp("mvtec_tree"))
    rng = np.random.default_rng(0)
    colour = _bytes_of(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8), "PNG")
    grey = _bytes_of(rng.integers(0, 256, (8, 12), dtype=np.uint8), "PNG")
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[2:6, 3:9] = 255
    mask_bytes = _bytes_of(mask, "PNG")
    with gzip.open(FACTS / "mvtec_files.csv.gz", "rt") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        tree.write(row["image"], grey if row["class"] in GREY_OBJECTS else colour)
        if row["mask"]:
            tree.write(row["mask"], mask_bytes)
    for place in ["", *(f"{name}/" for name in sorted({row["class"] for row in rows}))]:
        tree.write(f"{place}license.txt", b"CC BY-NC-SA 4.0\n")
        tree.write(f"{place}readme.txt", b"see license.txt\n")
    return tree.root


@pytest.fixture(scope="session")
def visa_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of all 10,821 images and 1,200 masks of VisA with the official list (CRLF). Read only: links.

    Images are JPEGs of 12x8 pixels; masks hold the values 1 and 2, as VisA's hold defect classes.
    """
    tree = _Tree(tmp_path_factory.mktemp("visa_tree"))
    image = _bytes_of(np.random.default_rng(1).integers(0, 256, (8, 12, 3), dtype=np.uint8), "JPEG")
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[2:6, 3:6], mask[2:6, 6:9] = 1, 2
    mask_bytes = _bytes_of(mask, "PNG")
    table = gzip.decompress((FACTS / "visa_1cls.csv.gz").read_bytes())
    tree.write("split_csv/1cls.csv", table)
    for row in csv.DictReader(io.StringIO(table.decode(), newline="")):
        tree.write(row["image"], image)
        if row["mask"]:
            tree.write(row["mask"], mask_bytes)
    return tree.root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` if there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of the whole suite: no test reads or writes the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("IUFBENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def quick_pdf() -> Iterator[int]:
    """PDF figures with Type 3 fonts: a subset of a TrueType font takes longer than the rest of the figure.

    Yields the font type that users get.
    """
    from iufbench.reporting.figures import drawing

    kept = drawing.STYLE["pdf.fonttype"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(drawing.STYLE, "pdf.fonttype", 3)
        yield kept


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of one test session, for what is made once and then only read."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def backbones() -> Iterator[None]:
    """A frozen backbone with the weights of a package is read once a process, not in every run."""
    from iufbench.engine import assembly

    read = assembly.load_backbone
    kept: dict[Any, Any] = {}

    def load(plan: Any, device: Any) -> Any:
        spec = assembly.backbone_spec(plan.recipe.backbone)
        if spec.weights != "package":
            return read(plan, device)
        if (spec, str(device)) not in kept:
            kept[spec, str(device)] = read(plan, device)
        return kept[spec, str(device)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "load_backbone", load)
        yield


@pytest.fixture(scope="session")
def data(session_folder: Path, backbones: None) -> Path:
    """Root of a tiny synthetic VisA: three objects, 6 training and 3 + 4 test images each. Read only."""
    from iufbench.data.synthetic import make

    root = session_folder / "data" / "visa"
    with FileLock(session_folder / "data.lock"):
        if not root.exists():
            objects = ["candle", "capsules", "cashew"]
            make(root, objects=objects, n_train=6, n_good=3, n_defective=4, workers=1, progress=False)
    return root


@pytest.fixture(scope="session")
def two_objects(data: Path, session_folder: Path) -> Callable[[str], Run]:
    """A finished run of any strategy: candle, then capsules (cashew is not learnt). Read only."""
    from tiny import finished

    return functools.cache(
        lambda strategy: finished(strategy, data, session_folder / "two_objects", "visa_1_1")
    )


@pytest.fixture(scope="session")
def three_objects(data: Path, session_folder: Path) -> Callable[[str], Run]:
    """A finished run of any strategy: candle and capsules, then cashew; see tests/tiny.py. Read only."""
    from tiny import finished

    return functools.cache(
        lambda strategy: finished(strategy, data, session_folder / "three_objects", "visa_2_1")
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window, for all pages; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium here")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()
