"""The anomaly maps of MVTec AD 2's private test sets: layout, types and values, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import trees
from click.testing import CliRunner
from PIL import Image
from tiny import tiny_run

from iufbench.cli.main import main
from iufbench.engine.predict import Predictor
from iufbench.engine.private_sets import write_submission
from iufbench.reporting.store import Run
from iufbench.support.errors import InputError, RunError

SETS = ("test_private", "test_private_mixed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A data set and a run on it, with thresholds."""
    root = tmp_path_factory.mktemp("ad2")
    trees.mvtecad2(root)
    for o in ("can", "fabric"):
        for k in range(1, 5):  # enough to calibrate thresholds on
            trees.put(root / o / "validation" / "good" / f"{k:03d}_regular.png")
    Image.new("RGB", (40, 20), (90, 60, 30)).save(root / "can" / "test_private" / "001_regular.png")
    results, settings = tmp_path_factory.mktemp("results"), ("base.epochs=1", "increment.epochs=1")
    run = tiny_run(
        "patchcore", root, results, settings, protocol="mvtecad2_1_1", preset="quick", threshold="mean+3sd"
    )
    return root, run


def test_a_submission_has_the_layout_types_and_values_that_the_server_asks_for(made, tmp_path):
    root, run = made
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["submission", str(run.path), str(root), "--out", str(out), "-q"])
    assert done.exit_code == 0 and done.output == f"{out}: 8 anomaly maps (can 4, fabric 4)\n"
    names = [("test_private", f"{k:03d}_regular") for k in range(2)]
    names += [("test_private_mixed", f"{k:03d}_mixed") for k in range(2)]
    expected = {
        f"{folder}/{o}/{part}/{stem}.{kind}"
        for folder, kind in (("anomaly_images", "tiff"), ("anomaly_images_thresholded", "png"))
        for o in ("can", "fabric")
        for part, stem in names
    }
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == expected
    image = root / "can" / "test_private" / "001_regular.png"
    (prediction,) = Predictor(run, "can").predictions([image])
    stored = tifffile.imread(out / "anomaly_images/can/test_private/001_regular.tiff")
    assert stored.dtype == np.float16 and stored.shape == (20, 40)
    smooth = np.asarray(Image.fromarray(prediction.map).resize((40, 20), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(stored, smooth, rtol=1e-3)
    limit = run.record.thresholds.objects["can"].frozen_pixel
    for place in (out / "anomaly_images_thresholded/can").rglob("*.png"):
        found = np.asarray(Image.open(place))
        part = place.relative_to(out / "anomaly_images_thresholded").with_suffix(".tiff")
        values = tifffile.imread(out / "anomaly_images" / part).astype(float)
        clear = abs(values - limit) > 1e-3 * limit  # not decided by rounding to float16
        assert found.dtype == np.uint8 and (found == np.where(values > limit, 255, 0))[clear].all()


def test_what_a_submission_refuses(made, tmp_path, monkeypatch):
    root, run = made
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="already exists"):
        write_submission(run, root, tmp_path / "there")
    trees.mvtecad2(tmp_path / "data")
    for file in (tmp_path / "data/fabric/test_private_mixed").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="fabric/test_private_mixed: no images; a submission needs both"):
        write_submission(run, tmp_path / "data", tmp_path / "out")
    scored = Predictor.predictions

    def huge(self, images, progress=None):
        return (replace(p, map=p.map + np.float32(1e6)) for p in scored(self, images, progress))

    monkeypatch.setattr(Predictor, "predictions", huge)
    with pytest.raises(RunError, match=r"the anomaly map reaches 1.*e\+06, beyond the range of float16"):
        write_submission(run, root, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "there"]
