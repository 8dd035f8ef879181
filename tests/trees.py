"""Tiny generated trees of every data set: two objects (if it has two), 3 training, 2 + 2 test images.

Each has the peculiarities of the real one. Images are 24x32 pixels of noise around a grey level, defects are
white squares.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 32)
SQUARE = (slice(8, 16), slice(12, 20))


def put(path: Path, defective: bool = False, seed: int = 0) -> Path:
    """An image; images of a tree differ unless ``seed`` is repeated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *path.as_posix().encode()])
    pixels = rng.integers(90, 130, (*SIZE, 3), dtype=np.uint8)
    if defective:
        pixels[SQUARE] = 255
    Image.fromarray(pixels).save(path)
    return path


def put_mask(path: Path, value: int = 255, region: tuple[slice, slice] = SQUARE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(SIZE, dtype=np.uint8)
    pixels[region] = value
    Image.fromarray(pixels).save(path)
    return path


def mvtec(root: Path, objects=("bolt", "nut"), good="good", bad="dent", end="_mask", suffix=".png") -> None:
    for name in objects:
        for k in range(3):
            put(root / name / "train" / good / f"{k:03d}{suffix}")
        for k in range(2):
            put(root / name / "test" / good / f"{k:03d}{suffix}")
            put(root / name / "test" / bad / f"{k:03d}{suffix}", True)
            put_mask(root / name / "ground_truth" / bad / f"{k:03d}{end}.png")


def mpdd(root: Path) -> None:
    mvtec(root, ("bracket_black", "bracket_brown"), bad="hole")


def btad(root: Path) -> None:
    mvtec(root, ("01", "02"), good="ok", bad="ko", end="", suffix=".bmp")


def loco(root: Path) -> None:
    for name in ("breakfast_box", "juice_bottle"):
        for split, count in (("train", 3), ("validation", 2), ("test", 2)):
            for k in range(count):
                put(root / name / split / "good" / f"{k:03d}.png")
        for defect in ("logical_anomalies", "structural_anomalies"):
            for k in range(2):
                put(root / name / "test" / defect / f"{k:03d}.png", True)
                # One file a region, whose value is the kind of defect.
                put_mask(root / name / "ground_truth" / defect / f"{k:03d}" / "000.png", 7)
                corner = (slice(0, 2), slice(0, 3))
                put_mask(root / name / "ground_truth" / defect / f"{k:03d}" / "001.png", 200, corner)
        (root / name / "defects_config.json").write_text("[]")


def autovi(root: Path) -> None:
    for name in ("engine_wiring", "pipe_clip"):
        mvtec(root, (name,), bad="unclipped")
        truth = root / name / "ground_truth" / "unclipped"
        for file in sorted(truth.glob("*_mask.png")):
            folder = truth / file.stem.removesuffix("_mask")
            folder.mkdir()
            file.rename(folder / "0000.png")


def mvtec3d(root: Path, objects=("bagel", "cable_gland"), name="{:03d}.png") -> None:
    for o in objects:
        for split, count in (("train", 3), ("validation", 2), ("test", 2)):
            for k in range(count):
                put(root / o / split / "good" / "rgb" / name.format(k))
                (root / o / split / "good" / "xyz").mkdir(exist_ok=True)
                (root / o / split / "good" / "xyz" / f"{k:03d}.tiff").write_bytes(b"not opened")
        for k in range(2):
            put_mask(root / o / "test" / "good" / "gt" / name.format(k), 0)
            put(root / o / "test" / "hole" / "rgb" / name.format(k), True)
            put_mask(root / o / "test" / "hole" / "gt" / name.format(k))
    (root / "calibration").mkdir()
    (root / "calibration" / "camera.json").write_text("{}")


def eyecandies(root: Path) -> None:
    mvtec3d(root, ("CandyCane", "ChocolateCookie"))


def adam3d(root: Path) -> None:
    """Masks below ``ground_truth``, with the camera's letter in their names."""
    mvtec3d(root, ("1m1", "1m2"), "{:03d}_C.png")
    for o in ("1m1", "1m2"):
        target = root / o / "ground_truth" / "hole"
        target.parent.mkdir()
        (root / o / "test" / "hole" / "gt").rename(target)


def realiad(root: Path, lists=("realiad_jsons_sv", "realiad_jsons", "realiad_jsons_fuiad_0.1")) -> None:
    """Five views; two views of each defective part show no defect and have no mask."""
    for o in ("audiojack", "bottle_cap"):
        entries: dict[str, list[list[dict]]] = {"train": [], "test": [], "noise": []}
        for split, number, defect in (
            *(("train", k, "OK") for k in range(3)),
            *(("test", k, "OK") for k in range(3, 5)),
            *(("test", k, "HS") for k in range(2)),
            ("noise", 7, "HS"),
        ):
            folder = f"OK/S{number:04d}" if defect == "OK" else f"NG/HS/S{number:04d}"
            middle = "OK" if defect == "OK" else "NG_HS"
            part = []
            for view in range(1, 6):
                image = f"{folder}/{o}_{number:04d}_{middle}_C{view}_2023.jpg"
                put(root / "realiad_256" / o / image, defect != "OK")
                mask = None
                if defect != "OK" and view <= 3:
                    mask = image.removesuffix(".jpg") + ".png"
                    put_mask(root / "realiad_256" / o / mask)
                part.append({"category": o, "anomaly_class": defect, "image_path": image, "mask_path": mask})
            entries[split].append(part)
        for name in lists:
            noise = entries["noise"] if "fuiad" in name else []
            views = slice(1) if name.endswith("_sv") else slice(5)
            content = {
                "meta": {"prefix": f"{o}/", "normal_class": "OK", "pre_transform": None},
                "train": [e for part in (*entries["train"], *noise) for e in part[views]],
                "test": [e for part in entries["test"] for e in part[views]],
            }
            path = root / "realiad_jsons" / name / f"{o}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))


def mvtecad2(root: Path) -> None:
    for o in ("can", "fabric"):
        for k in range(3):
            put(root / o / "train" / "good" / f"{k:03d}_regular.png")
        put(root / o / "validation" / "good" / "000_regular.png")
        for k in range(2):
            for light in ("regular", "overexposed"):
                put(root / o / "test_public" / "good" / f"{k:03d}_{light}.png")
                put(root / o / "test_public" / "bad" / f"{k:03d}_{light}.png", True)
                put_mask(root / o / "test_public" / "ground_truth" / "bad" / f"{k:03d}_{light}_mask.png")
            put(root / o / "test_private" / f"{k:03d}_regular.png")
            put(root / o / "test_private_mixed" / f"{k:03d}_mixed.png")


def dagm(root: Path) -> None:
    for o in ("Class1", "Class2", "Class10"):
        for split, good in (("Train", 3), ("Test", 2)):
            for k in range(good + 2):
                defective = k >= good
                put(root / o / split / f"{k:04d}.PNG", defective)
                if defective:
                    put_mask(root / o / split / "Label" / f"{k:04d}_label.PNG")
            named = (f"{k}\t1\t{k:04d}.PNG\t0\t{k:04d}_label.PNG\n" for k in range(good, good + 2))
            (root / o / split / "Label" / "Labels.txt").write_text("1\n" + "".join(named))


def kolektorsdd2(root: Path) -> None:
    for split, good in (("train", 3), ("test", 2)):
        for k in range(good + 2):
            put(root / split / f"{10000 + k}.png", k >= good)
            put_mask(root / split / f"{10000 + k}_GT.png", 255 if k >= good else 0)
    put(root / "train" / "10301 (copy).png")
    (root / "split_weakly_0.pyb").write_bytes(b"a pickle that nobody opens")


def kolektorsdd(root: Path) -> None:
    for item in range(1, 6):
        for k in range(2):
            put(root / f"kos{item:02d}" / f"Part{k}.jpg", k == 1)
            put_mask(root / f"kos{item:02d}" / f"Part{k}_label.bmp", 255 if k == 1 else 0)


def mtd(root: Path) -> None:
    for k in range(6):
        put(root / "MT_Free" / "Imgs" / f"exp1_num_{k}.jpg")
        put_mask(root / "MT_Free" / "Imgs" / f"exp1_num_{k}.png", 0)
    for defect in ("MT_Blowhole", "MT_Crack"):
        put(root / defect / "Imgs" / "exp1_num_0.jpg", True)
        put_mask(root / defect / "Imgs" / "exp1_num_0.png")


def vad(root: Path) -> None:
    for place, count in (("train/good", 3), ("train/bad", 2), ("test/good", 2), ("test/bad", 1)):
        for k in range(count):
            put(root / "vad" / place / f"{k}.png", place.endswith("bad"))
    put(root / "vad" / "test" / "bad_unseen_defects" / "0.png", True)


def flat(root: Path) -> None:
    for o in ("gear", "plate"):
        for k in range(6):
            put(root / o / "good" / f"{k}.png")
        for k in range(2):
            put(root / o / "bad" / f"{k}.png", True)


def meta_json(root: Path) -> Path:
    """An ADer list of two MVTec-like objects; training has a defective image, as in Continual-MEGA."""
    mvtec(root)
    content: dict[str, dict[str, list[dict]]] = {"train": {}, "test": {}}
    for o in ("bolt", "nut"):
        for split in content:
            entries = content[split].setdefault(o, [])
            for image in sorted((root / o / split).rglob("*.png")):
                defect = image.parent.name
                mask = f"{o}/ground_truth/{defect}/{image.stem}_mask.png" if defect != "good" else ""
                entries.append(
                    {"img_path": image.relative_to(root).as_posix(), "mask_path": mask, "cls_name": o,
                     "specie_name": defect, "anomaly": int(bool(mask))}
                )  # fmt: skip
        extra = put(root / o / "more" / "0.png", True)
        content["train"][o].append(
            {"img_path": extra.relative_to(root).as_posix(), "mask_path": "", "cls_name": o,
             "specie_name": "dent", "anomaly": 1}
        )  # fmt: skip
    path = root / "meta.json"
    path.write_text(json.dumps(content, indent=1))
    return path


def inclad_csv(root: Path, orders=(("easy_to_hard", ("03", "01")), ("hard_to_easy", ("01", "03")))) -> Path:
    """A manifest of two sources in adjacent folders, with two orders."""
    mvtec(root / "btech", ("03",), bad="ko")
    mvtec(root / "MVTec", ("01",))
    sources = {"03": ("BTech", root / "btech"), "01": ("MVTec", root / "MVTec")}
    path = root / "inclad.csv"
    with path.open("w", newline="") as stream:
        names = "sample_id source_dataset source_category category category_order split image_relpath "
        names += "mask_relpath image_label defect_type ordering_name ordering_master_seed ordering_seed "
        table = csv.DictWriter(stream, (names + "source_homepage source_license").split())
        table.writeheader()
        for ordering, categories in orders:
            for place, category in enumerate(categories):
                source, folder = sources[category]
                for split in ("train", "test"):
                    for image in sorted((folder / category / split).rglob("*.png")):
                        defect = image.parent.name
                        name = image.relative_to(folder).as_posix()
                        mask = f"{category}/ground_truth/{defect}/{image.stem}_mask.png"
                        table.writerow(
                            {"sample_id": f"{source}/{name}", "source_dataset": source, "category": category,
                             "source_category": category, "category_order": place, "split": split,
                             "image_relpath": name, "mask_relpath": "" if defect == "good" else mask,
                             "image_label": int(defect != "good"), "ordering_seed": 0,
                             "defect_type": "" if defect == "good" else defect, "ordering_name": ordering,
                             "ordering_master_seed": 0, "source_homepage": "", "source_license": ""}
                        )  # fmt: skip
    return path


# Data set -> what makes its tree.
TREES: dict[str, Callable[[Path], None]] = {
    "mpdd": mpdd, "btad": btad, "loco": loco, "autovi": autovi, "mvtec3d": mvtec3d,
    "mvtec3d_trainval": mvtec3d, "eyecandies": eyecandies, "adam3d": adam3d, "realiad": realiad,
    "realiad_views": realiad, "realiad_fuiad_0.1": realiad, "mvtecad2": mvtecad2, "dagm": dagm,
    "kolektorsdd": kolektorsdd, "kolektorsdd2": kolektorsdd2, "mtd": mtd, "vad": vad,
}  # fmt: skip
