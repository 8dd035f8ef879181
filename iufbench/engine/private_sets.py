"""Anomaly maps of MVTec AD 2's private test sets, in the layout that its benchmark server requires.

    <out>/anomaly_images/<object>/<set>/<image>.tiff                float16, one channel
    <out>/anomaly_images_thresholded/<object>/<set>/<image>.png     0 or 255; for a run with thresholds

The layout is that of the checking script distributed with the data set, which accepts nothing else in these
folders. It does not check image sizes; maps have the size of their image here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from iufbench.data.images import read_header
from iufbench.data.readers.mvtec_ad_2 import PRIVATE, private_images
from iufbench.data.readers.reading import require_root
from iufbench.engine.predict import Predictor
from iufbench.reporting.predictions import Prediction, new_folder, require_new
from iufbench.reporting.store import Run, load_run
from iufbench.reporting.thresholds import stored_threshold
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import PathOrText
from iufbench.support.progress import Progress

INSTALL = 'pip install "iufbench[mvtecad2]"'
MAPS, THRESHOLDED = "anomaly_images", "anomaly_images_thresholded"


def write_submission(
    run: Run | PathOrText,
    root: PathOrText,
    out: PathOrText,
    device: str = "auto",
    threshold: str | None = None,
    progress: Progress | None = None,
    trust_code: bool = False,
) -> dict[str, int]:
    """Write the anomaly maps of the private test sets of every object of a run.

    Args:
        run: A finished run on MVTec AD 2, or its directory.
        root: The folder of the data set, which contains the objects.
        out: A new folder; it appears once all maps have been written.
        device: As for ``Predictor``.
        threshold: ``frozen`` (default) or ``own``: which pixel threshold of the run makes the thresholded
            images; without thresholds in the run there are none.
        progress: Shows a bar; None for silence.
        trust_code: As for ``Predictor``.

    Returns:
        The number of maps by object.

    Raises:
        InputError: An object has no private test sets below ``root``, ``out`` exists, ``tifffile`` is not
            installed, or as ``Predictor`` does.
        RunError: A map does not fit float16, the folder cannot be written, or as ``Predictor`` does.
    """
    run = run if isinstance(run, Run) else load_run(run)
    base, out = require_root(root, "mvtecad2"), Path(out)
    require_new(out)
    images = {name: _private(base, name) for name in run.objects}
    counts = {}
    with new_folder(out) as work:
        for name, files in images.items():
            predictor = Predictor(run, name, device, trust_code=trust_code, threshold=threshold)
            limit = stored_threshold(run.record, name, threshold, pixel=True)
            for prediction in predictor.predictions(files, progress):
                _write(prediction, work, limit)
            counts[name] = len(files)
    return counts


def _private(root: Path, name: str) -> list[Path]:
    found = private_images(root, name)
    for part in PRIVATE:
        if not found.get(part):
            raise InputError(f"{root / name / part}: no images; a submission needs both private test sets")
    return [file for part in PRIVATE for file in found[part]]


def _write(prediction: Prediction, folder: Path, limit: float | None) -> None:
    """One map at the size of its image, and where it is above ``limit``."""
    try:
        import tifffile
    except ImportError as error:
        raise InputError(f"a submission needs the package tifffile: {INSTALL}") from error
    image = prediction.image
    place = Path(image.parts[-3], image.parts[-2], image.stem)
    size = read_header(image).size
    values = np.asarray(Image.fromarray(prediction.map).resize(size, Image.Resampling.BILINEAR))
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        raise RunError(f"{image}: the anomaly map reaches {values.max():g}, beyond the range of float16")
    target = (folder / MAPS / place).with_suffix(".tiff")
    target.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(target, stored, compression="zlib")
    if limit is not None:
        target = (folder / THRESHOLDED / place).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(values > limit, 255, 0).astype(np.uint8)).save(target)
