"""A run on many tiny images: time of every stage and peak memory against the number of images.

Each size is a process of its own that runs `uniad` (one epoch, a small network, real EfficientNet-Lite0
features of 32-pixel images) on 30 objects through the caches, as `iufbench run` does, and again with full
caches. Images are hard links to a few PNG files. Prints CPU seconds (decoding processes included), wall
seconds by stage, and what the process held at most: all of it, and without the pages of mapped files, which
the system takes back when it needs them.

Usage: python tests/perf/large.py [--images 15000,50000,150000] [--folder DIR] [--mapped]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

OBJECTS = 30
TEST_SHARE = 0.02  # of an object's images, half of them defective
DIFFERENT = 20
SETTINGS = (
    "image_size=32", "backbone.layers=[0]", "network.hidden=16", "network.heads=2", "network.feedforward=16",
    "network.encoder_layers=1", "network.decoder_layers=1", "network.neighbour_mask=null", "base.epochs=1",
    "increment.epochs=1", "base.batch_size=256", "increment.batch_size=256",
)  # fmt: skip


def make_tree(root: Path, images: int) -> None:
    """``images`` images in MVTec layout, equally many of each object."""
    random, sources = np.random.default_rng(0), []
    for number in range(DIFFERENT):
        sources.append(root / f"source{number}.png")
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(sources[-1])
    mask = root / "mask.png"
    marked = np.zeros((32, 32), dtype=np.uint8)
    marked[8:16, 8:16] = 255
    Image.fromarray(marked).save(mask)
    each = images // OBJECTS
    bad = max(2, round(each * TEST_SHARE / 2))
    for number in range(OBJECTS):
        folder = root / "data" / f"part{number:02d}"
        for name, count, files in (
            ("train/good", each - 2 * bad, sources),
            ("test/good", bad, sources),
            ("test/scratch", bad, sources),
            ("ground_truth/scratch", bad, [mask]),
        ):
            (folder / name).mkdir(parents=True)
            for i in range(count):
                os.link(files[i % len(files)], folder / name / f"{i:06d}.png")


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    return sum(os.times()[:4])


class Peaks(threading.Thread):
    """Watches what this process holds: MiB in all, and MiB that are not pages of files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.all = self.own = 0.0
        self.start()

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            held, files = (int(status[k].split()[0]) / 1024 for k in ("VmRSS", "RssFile"))
            self.all, self.own = max(self.all, held), max(self.own, held - files)
            time.sleep(0.05)


def work(root: Path, mapped: bool) -> dict[str, object]:
    """One run, again with full caches, and what both cost."""
    from iufbench.cards.request import Request
    from iufbench.data import residency
    from iufbench.engine.plan import prepare
    from iufbench.engine.runner import execute
    from iufbench.reporting.record import read_record
    from iufbench.support.progress import Progress

    if mapped:
        residency.free_memory = lambda: 0
    peaks = Peaks()
    result: dict[str, object] = {}
    for name in ("first", "again"):
        cpu, wall = cpu_seconds(), time.perf_counter()
        plan = prepare(
            Request(
                protocol="large_29_1",
                strategy="uniad",
                data_root=root / "data",
                device="cpu",
                preset="quick",
                threads=1,
                settings=SETTINGS,
                results=root / name,
            )
        )
        planned = time.perf_counter() - wall
        seconds = read_record(execute(plan, Progress(-1))).seconds
        result[name] = {
            "cpu": round(cpu_seconds() - cpu, 1),
            "wall": round(time.perf_counter() - wall, 1),
            "plan": round(planned, 1),
            "features": round(seconds.features, 1),
            "train": round(seconds.train, 1),
            "evaluate": round(seconds.evaluate, 1),
            "peak_mib": round(peaks.all),
            "own_mib": round(peaks.own),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", default="15000,50000,150000")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument(
        "--mapped", action="store_true", help="inputs in a mapped file, as if memory were full"
    )
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        print(json.dumps(work(given.work, given.mapped)))
        return
    for images in map(int, given.images.split(",")):
        root = Path(tempfile.mkdtemp(prefix="large-", dir=given.folder))
        try:
            make_tree(root, images)
            command = [sys.executable, "-W", "ignore", __file__, "--work", str(root)]
            environment = {**os.environ, "IUFBENCH_CACHE": str(root / "cache")}
            done = subprocess.run(
                [*command, *(["--mapped"] if given.mapped else [])],
                env=environment, stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            print(images, done.stdout.strip().splitlines()[-1], flush=True)
        finally:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
