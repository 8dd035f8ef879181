"""The check finds every kind of fault, anywhere and with any number of workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iufbench.data.check import Finding, check_dataset, check_folder
from iufbench.data.readers.mvtec import read_mvtec
from iufbench.data.samples import DataSet

COUNTS = {"train": 12, "test_good": 2, "test_defective": 2}


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    """Two objects, all images different."""
    rng = np.random.default_rng(0)

    def put(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    def picture() -> np.ndarray:
        return rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)

    for name in ("bolt", "nut"):
        for k in range(COUNTS["train"]):
            put(tmp_path / name / "train" / "good" / f"{k:03d}.png", picture())
        for k in range(2):
            put(tmp_path / name / "test" / "good" / f"{k:03d}.png", picture())
            put(tmp_path / name / "test" / "dent" / f"{k:03d}.png", picture())
            put(
                tmp_path / name / "ground_truth" / "dent" / f"{k:03d}_mask.png", np.eye(8, 10, dtype=np.uint8)
            )
    return read_mvtec(tmp_path)


def both() -> dict[str, dict[str, int]]:
    return {name: dict(COUNTS) for name in ("bolt", "nut")}


def test_nothing_is_found_where_nothing_is_wrong(dataset: DataSet):
    assert check_dataset(dataset, both(), workers=1, progress=False) == []
    assert check_dataset(dataset, None, workers=1, progress=False) == []


def test_counts_that_differ(dataset: DataSet):
    expected = both()
    expected["nut"]["train"] = 391
    expected["washer"] = expected.pop("bolt")
    assert check_dataset(dataset, expected, workers=1, progress=False) == [
        Finding("error", "nut", "", "12 train images, officially 391"),
        Finding("error", "washer", "", "object 'washer' is missing"),
        Finding("warning", "bolt", "", "object 'bolt' is not an official one"),
    ]


def spoil(root: Path) -> None:
    (root / "bolt/train/good/003.png").write_bytes((root / "bolt/train/good/003.png").read_bytes()[:90])
    (root / "bolt/test/dent/000.png").write_bytes(b"")
    Image.fromarray(np.ones((8, 9), np.uint8)).save(root / "nut/ground_truth/dent/000_mask.png")
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(root / "nut/ground_truth/dent/001_mask.png")
    # The same pictures again, one of them in another file format: bytes differ, pixels do not.
    with Image.open(root / "nut/train/good/004.png") as image:
        image.save(root / "nut/test/good/000.png", compress_level=0)
    with Image.open(root / "nut/test/dent/001.png") as image:
        image.save(root / "nut/test/good/001.png")


def test_corruption_of_every_kind_is_found(dataset: DataSet):
    spoil(dataset.root)
    findings = check_dataset(dataset, both(), workers=1, progress=False)
    expected = [
        ("error", "bolt/train/good/003.png", "cannot be read as an image"),
        ("error", "bolt/test/dent/000.png", "is empty (0 bytes)"),
        ("error", "nut/test/dent/000.png", "is 9x8 pixels, its image"),
        ("error", "nut/test/dent/001.png", "marks no pixel"),
        ("warning", "nut/test/good/000.png", "same picture as training image nut/train/good/004.png"),
        ("error", "nut/test/good/001.png", "same picture as nut/test/dent/001.png"),
    ]
    assert [(f.severity, f.path) for f in findings] == [(severity, path) for severity, path, _ in expected]
    for finding, (_, _, text) in zip(findings, expected):
        assert text in finding.message and finding.object == finding.path.split("/")[0]


def test_masks_that_are_strange_are_pointed_out(dataset: DataSet):
    masks = sorted((dataset.root / "nut/ground_truth/dent").iterdir())
    Image.fromarray(np.full((8, 10), 255, np.uint8)).save(masks[0])
    Image.fromarray(np.diag(np.arange(30, 254, 28, dtype=np.uint8))[:, [*range(8), 0, 0]]).save(masks[1])
    findings = check_dataset(dataset, both(), workers=1, progress=False)
    assert [(f.severity, f.path) for f in findings] == [
        ("warning", "nut/test/dent/000.png"),
        ("warning", "nut/test/dent/001.png"),
    ]
    assert "are they inverted" in findings[0].message and "as if smoothed" in findings[1].message
    assert check_dataset(dataset, both(), workers=1, progress=False, accept_masks=True) == []


def test_the_report_shows_counts_beside_the_official_ones(dataset: DataSet):
    """A folder that should be MVTec AD: missing files do not hide faults of existing ones."""
    for name in ("bottle", "cable"):
        (dataset.root / {"bottle": "bolt", "cable": "nut"}[name]).rename(dataset.root / name)
    (dataset.root / "cable/train/good/003.png").write_bytes(b"")
    report = check_folder(dataset.root, "mvtec", workers=1, progress=False)
    assert set(report.counts) == {"bottle", "cable"} and report.as_dict()["counts"]["cable"] == COUNTS
    text = report.as_text().splitlines()
    assert text[1].split() == ["bottle", "12", "of", "209", "2", "of", "20", "2", "of", "63"]
    assert "lacks 13 of 15 objects" in report.as_text() and "is empty (0 bytes)" in report.as_text()
    assert text[-1].startswith("mvtec: 32 images, 2 of 15 objects (counts compared with the official ones)")
    (dataset.root / "cable/test/dent/000.png").unlink()
    (dataset.root / "bottle/train/good").rename(dataset.root / "bottle/train/defects")
    messages = [f.message for f in check_folder(dataset.root, "mvtec", workers=1, progress=False).findings]
    assert any("bottle/train/defects: training images" in m for m in messages)
    assert any("1 test defective images, officially 92" in m for m in messages)


@pytest.mark.slow
def test_the_full_list_of_visa_is_checked_in_parallel(visa_tree: Path):
    report = check_folder(visa_tree, "visa", workers=2, progress=False)
    assert report.images == 10_821 and report.counts == report.expected
    # The tree's files are all one picture, which the check has to notice, and nothing else is wrong.
    assert report.findings and all("same picture" in f.message for f in report.findings)


def test_result_does_not_depend_on_workers(dataset: DataSet):
    spoil(dataset.root)
    alone = check_dataset(dataset, both(), workers=1, progress=False)
    assert check_dataset(dataset, both(), workers=2, progress=False) == alone
    assert check_dataset(dataset, both(), workers=None, progress=True) == alone


def test_an_object_with_one_kind_of_test_images_is_strange(dataset: DataSet):
    for path in (dataset.root / "nut/test/good").iterdir():
        path.unlink()
    found = check_dataset(read_mvtec(dataset.root), workers=1, progress=False)
    assert [(f.severity, f.object) for f in found] == [("warning", "nut")]
    assert "no good test" in found[0].message


def test_an_interrupt_ends_all_workers_without_their_tracebacks(dataset: DataSet):
    """Ctrl-C reaches every process of a terminal's group, including workers that are just starting."""
    code = (
        "import sys\nfrom iufbench.data.check import check_dataset\n"
        "from iufbench.data.readers.mvtec import read_mvtec\n"
        "if __name__ == '__main__':\n    print('ready', flush=True)\n"
        "    while True:\n        check_dataset(read_mvtec(sys.argv[1]), workers=2, progress=False)\n"
    )
    script = dataset.root.parent / "check_for_ever.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script), str(dataset.root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    process.stdout.readline()
    time.sleep(0.3)  # the workers are starting
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(2)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    # A second interrupt may hit the process on its way out and add tracebacks of its own, never of workers.
    assert "KeyboardInterrupt" in errors and "check_for_ever.py" in errors
    assert "SpawnProcess" not in errors and "spawn_main" not in errors, errors
