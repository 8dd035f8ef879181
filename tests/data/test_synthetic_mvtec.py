"""The fifteen synthetic objects of MVTec AD: names, defects, greyscale files, masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from iufbench.data.synthetic import make
from iufbench.data.synthetic.render import compose, render_image
from iufbench.data.synthetic.scene import load_scenes

# MVTec AD (CVPR 2019), table 1: five textures, ten objects; three are photographed in grey-scale.
TEXTURES = {"carpet", "grid", "leather", "tile", "wood"}
OBJECTS = {
    "bottle", "cable", "capsule", "hazelnut", "metal_nut",
    "pill", "screw", "toothbrush", "transistor", "zipper",
}  # fmt: skip
GREY = {"grid", "screw", "zipper"}
# Defects of the whole object, or of its whole middle: no mask of a few per cent can state them.
LARGE = {("metal_nut", "flip"), ("transistor", "misplaced"), ("cable", "missing_cable")}
CASES = [(name, kind) for name in sorted(TEXTURES | OBJECTS) for kind in load_scenes()["mvtec"][name].defects]


def test_names_and_defect_types():
    scenes = load_scenes()["mvtec"]
    assert set(scenes) == TEXTURES | OBJECTS
    assert list(scenes) == sorted(scenes)
    for name, scene in scenes.items():
        assert len(scene.defects) >= 4, name
        assert len(set(scene.defects)) == len(scene.defects), name
    assert {"broken_large", "broken_small", "contamination"} <= set(scenes["bottle"].defects)
    assert {"bent_lead", "cut_lead", "damaged_case", "misplaced"} <= set(scenes["transistor"].defects)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_defect_is_clear_and_its_mask_exact(name: str, kind: str):
    intact, broken, mask = compose("mvtec", name, kind, 1)
    assert broken is not None and mask is not None
    area = mask.mean()
    assert mask.sum() >= 150
    assert area < (0.30 if (name, kind) in LARGE else 0.13)
    change = np.abs(np.clip(broken, 0, 1) - np.clip(intact, 0, 1)).max(-1)
    assert change[mask].mean() > 0.09
    # Nothing that an eye would see lies further than the soft edge of the mask; specks are dropped.
    near = ndimage.binary_dilation(mask, iterations=4)
    assert (change > 0.10)[~near].sum() < 60


@pytest.mark.parametrize("name", sorted(TEXTURES | OBJECTS))
def test_normal_images_vary_but_repeat(name: str):
    first, _ = render_image("mvtec", name, "train", 0)
    again, _ = render_image("mvtec", name, "train", 0)
    other, _ = render_image("mvtec", name, "train", 1)
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 2
    assert (np.ptp(first, axis=2).max() == 0) == (name in GREY)


def test_grey_objects_are_one_channel_files(tmp_path):
    make(tmp_path / "set", "mvtec", ["bottle", "screw"], 1, 1, 1, workers=1, progress=False)
    for name, mode in (("bottle", "RGB"), ("screw", "L")):
        files = sorted((tmp_path / "set" / name).glob("t*/*/*.png"))
        assert len(files) == 3
        assert {Image.open(file).mode for file in files} == {mode}
    written = np.asarray(Image.open(tmp_path / "set" / "screw" / "train" / "good" / "000.png"))
    assert np.array_equal(written, render_image("mvtec", "screw", "train", 0)[0][..., 0])
