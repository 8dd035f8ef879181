"""Synthetic images per second of CPU time on one core, a third of the objects of each data set."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from iufbench.data.synthetic import make
from iufbench.data.synthetic.render import get_scenes


def main() -> None:
    for dataset in ("mvtec", "visa"):
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            objects = list(get_scenes(dataset))[::3]
            images = make(Path(folder) / dataset, dataset, objects, 10, 4, 6, workers=1)
            print(f"{dataset}: {images / (time.process_time() - start):.0f} images/s (goal 20)")


if __name__ == "__main__":
    main()
