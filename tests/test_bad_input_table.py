# ruff: noqa: E501 (one row, one line)
"""A table of bad input: arguments or files, with the exit code and words of the message.

Every row gives one line of error (or a report of ``data check``), no traceback, and writes nothing. Rows with
exit code 0 document how unusual valid input is handled.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from iufbench.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
DIGITS = "9" * 5000


def put(path: Path, pixels=None, mode=None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = np.random.default_rng(zlib.crc32(os.fsencode(path.name))).integers(
            0, 256, (8, 10, 3), dtype=np.uint8
        )
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


MASK = np.zeros((8, 10), dtype=np.uint8)
MASK[2:5, 3:6] = 255


def parts(root: Path, name="nut") -> Path:
    """A data set of one object in MVTec layout."""
    for k in range(2):
        put(root / name / f"train/good/{k}.png")
        put(root / name / f"test/good/{k}{k}.png")
        put(root / name / f"test/dent/{k}{k}{k}.png")
        put(root / name / f"ground_truth/dent/{k}{k}{k}_mask.png", MASK)
    return root


def run_arguments(root, results, protocol="mine_1_1", strategy="uniad", *more):
    data = () if root is None else ("--data-root", root)
    return ["run", "--protocol", protocol, "--strategy", strategy, *data, "--results", results,
            "--preset", "quick", "--device", "cpu", "-q", *more]  # fmt: skip


def listing(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def judge(tmp_path: Path, arguments, code: int, words) -> None:
    before = listing(tmp_path)
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    said = done.stdout + done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, said
    assert "Traceback" not in said
    for word in (words,) if isinstance(words, str) else words:
        assert word in said, said
    if arguments[:2] != ["data", "check"]:
        assert done.stdout == "" and done.stderr.count("\n") <= 5  # click's own errors show the usage, too
        assert len(done.stderr) < 2000, "nobody reads that"
    assert listing(tmp_path) == before, "something was written"


# What is typed -------------------------------------------------------------------------------------------

TYPED = {
    "no protocol": (["--protocol", ""], 2, "unknown protocol ''"),
    "drift of a data set outside": (["--protocol", "../mine@drift_blur"], 2, "'../mine' cannot name a data set; the rule: "),
    "drift of a missing value": (["--protocol", "nan@drift_blur"], 2, "not a word that CSV readers take"),
    "data set that calls itself synthetic": (["--protocol", "mine-synthetic_1_1"], 2, "added to the names of generated"),
    "data set alone": (["--protocol", "visa"], 2, "unknown protocol 'visa'"),
    "mistyped protocol": (["--protocol", "visa_8_1x44x"], 2, "did you mean"),
    "no base": (["--protocol", "mine_0_1"], 2, "at least one object"),
    "no step": (["--protocol", "mine_1_0x2"], 2, "at least one object"),
    "no increment": (["--protocol", "mine_1_1x0"], 2, "leaves no increment"),
    "too many objects": (["--protocol", "mine_9_9"], 2, "needs 18 objects, but mine has 2"),
    "too many steps": (["--protocol", "mine_1_1x9999"], 2, "needs 10000 objects"),
    "a billion steps": (["--protocol", "mine_1_1x1000000000"], 2, "unknown protocol"),
    "number without end": (["--protocol", f"mine_{DIGITS}_1"], 2, "unknown protocol 'mine_999"),
    "two ways to write one": (["--protocol", "mine_01_1"], 2, "unknown protocol"),
    "other digits": (["--protocol", "mine_\u0661_1"], 2, "unknown protocol"),
    "line break": (["--protocol", "mine_1_1\n"], 2, "unknown protocol 'mine_1_1\\n'"),
    "folder": (["--protocol", "../mine_1_1"], 2, "unknown protocol"),
    "wrong case": (["--protocol", "VISA_1_1"], 2, "did you mean 'visa'"),
    "mistyped strategy": (["--strategy", "uniat"], 2, "did you mean 'uniad'"),
    "no strategy": (["--strategy", ""], 2, "unknown strategy ''"),
    "card that is not there": (["--strategy", "nowhere.yaml"], 2, "nowhere.yaml: no such file"),
    "preset": (["--preset", "fast"], 2, "allowed: paper, quick"),
    "negative seed": (["--seed", "-1"], 2, "-1 is not in the range"),
    "seed in words": (["--seed", "one"], 2, "'one' is not a valid integer"),
    "endless seed": (["--seed", "1" + "0" * 300], 2, "is not in the range"),
    "no threads": (["--threads", "0"], 2, "0 is not in the range"),
    "device": (["--device", "tpu"], 2, "--device tpu"),
    "weights": (["--weights", "nowhere.pth"], 2, "'nowhere.pth': there is no such file"),
    "initial weights": (["--init-from", "nowhere.pth"], 2, "nowhere.pth"),
    "order and its seed": (["--order", "nut,bolt", "--order-seed", "1"], 2, "cannot be given together"),
    "order with a stranger": (["--order", "nut,bold"], 2, "did you mean 'bolt'"),
    "order twice": (["--order", "nut,nut"], 2, "names 'nut' twice"),
    "order of nothing": (["--order", ","], 2, "contains no names"),
    "one list": (["--train-list", "a.json"], 2, "belong together"),
    "two sources": (["--synthetic"], 2, "cannot be given together"),
    "diagnosis": (["--diagnose-every", "3"], 2, "--diagnose-selection"),
    "no calibration images left": (["--threshold", "0.95"], 2, "bolt has 2 training images; with 5 set aside"),
    "rule in words": (["--threshold", "best"], 2, "not a rule: use one such as quantile 0.95"),
    "quantile of 95": (["--threshold", "quantile 95"], 2, "between 0 and 1"),
    "share of all": (["--threshold", "0.95", "--calibration", "1"], 2, "above 0 and below 1"),
    "share of nothing": (["--threshold", "0.95", "--calibration", "nan"], 2, "calibration must be a number"),
    "share without a rule": (["--calibration", "0.1"], 2, "--calibration belongs to --threshold"),
    "setting without value": (["--set", "base.epochs"], 2, "must be key=value"),
    "setting without key": (["--set", "=3"], 2, "must be key=value"),
    "setting of nothing": (["--set", "base.=3"], 2, "unknown key 'base.'"),
    "unknown setting": (["--set", "bas.epochs=3"], 2, "did you mean 'base'"),
    "too few epochs": (["--set", "base.epochs=0"], 2, "base.epochs must be >= 1"),
    "too many epochs": (["--set", "base.epochs=10000000"], 2, "base.epochs must be <= 1000000"),
    "half an epoch": (["--set", "base.epochs=1.5"], 2, "base.epochs"),
    "integer without end": (["--set", f"base.epochs={DIGITS}"], 2, "a number cannot be read"),
    "integer beyond 64 bits": (["--set", f"base.batch_size={'9' * 400}"], 2, "which is too large"),
    "rate beyond floats": (["--set", f"base.lr={'9' * 400}"], 2, "base.lr must be a number"),
    "rate that is none": (["--set", "base.lr=.nan"], 2, "base.lr must be a number"),
    "infinite rate": (["--set", "base.lr=.inf"], 2, "base.lr must be a number"),
    "huge network": (["--set", "network.hidden=99999999999"], 2, "network.hidden must be <="),
    "true for a number": (["--set", "base.epochs=true"], 2, "base.epochs"),
    "a choice by another type": (["--set", "backbone.precision=1"], 2, "must be one of float16, float32"),
    "code in a setting": (["--set", "title=!!python/object/apply:os.getcwd []"], 2, "the tag"),
    "brackets without end": (["--set", "base.epochs=" + "[" * 5000], 2, "not valid YAML"),
    "open bracket": (["--set", "base.epochs=["], 2, "not valid YAML"),
    "size of images": (["--set", "image_size=100000"], 2, "image_size must be <= 1024"),
}  # fmt: skip


@pytest.mark.parametrize("row", TYPED)
def test_typed(row, tmp_path):
    root = parts(parts(tmp_path / "data"), "bolt")
    more, code, words = TYPED[row]
    judge(tmp_path, run_arguments(root, tmp_path / "r", "mine_1_1", "uniad", *more), code, words)


# Cards ---------------------------------------------------------------------------------------------------

CARDS = {
    "empty": ("", "must be a mapping"),
    "list": ("- a\n- b\n", "must be a mapping"),
    "no YAML": ("title: [\n", "line 2"),
    "tabs": ("base:\n\tepochs: 3\n", "line 2"),
    "key twice": ("title: a\ntitle: b\n", "line 2: duplicate key 'title'"),
    "key that is no text": ("extends: uniad\n1: 2\n", "the key 1 must be text"),
    "two documents": ("title: a\n---\ntitle: b\n", "line 2"),
    "a circle": ("extends: uniad\nprovenance: &a {b: *a}\n", "line 2: found unconstructable recursive node"),
    "code": (
        "title: !!python/object/apply:os.getcwd []\n",
        "constructor for the tag 'tag:yaml.org,2002:python",
    ),
    "bytes": (
        "extends: uniad\nprovenance: {a: !!binary aGFsbG8=}\n",
        "constructor for the tag 'tag:yaml.org,2002:binary",
    ),
    "set": ("extends: uniad\nprovenance: !!set {a, b}\n", "constructor for the tag 'tag:yaml.org,2002:set"),
    "date by tag": (
        "extends: uniad\ntitle: !!timestamp 2024-10-01\n",
        "constructor for the tag 'tag:yaml.org,2002:timestamp",
    ),
    "number by tag": (
        "extends: uniad\nversion: !!int one\n",
        "a number cannot be read (invalid literal for int()",
    ),
    "endless number": (f"extends: uniad\nversion: {DIGITS}\n", "a number cannot be read (Exceeds the limit"),
    "endless brackets": ("title: " + "[" * 5000, "is nested too deeply"),
    "two megabytes": ("# " + "x" * 2_000_000, "the limit for a card is"),
    "UTF-16": ("title: a\n".encode("utf-16"), "is not UTF-8 text"),
    "Latin-1": ("title: \u00fc\n".encode("latin-1"), "is not UTF-8 text (byte 7)"),
    "null bytes": (b"title: a\0b\n", "mine.yaml"),
    "aliases of aliases": (
        "a0: &a0 [x]\n" + "".join(f"a{k}: &a{k} [{', '.join(9 * [f'*a{k - 1}'])}]\n" for k in range(1, 12)),
        "has more than 100,000 values",
    ),
    "aliases that are merged": (
        "a0: &a0 {x: 1}\n"
        + "".join(f"a{k}: &a{k} {{<<: [{', '.join(9 * [f'*a{k - 1}'])}]}}\n" for k in range(1, 12)),
        "has more than 100,000 values",
    ),
    "merged keys": ("extends: uniad\n<<: {title: x}\n", "unknown key '<<'"),
    "extends itself": ("extends: mine\n", "extends itself"),
    "extends a list": ("extends: [uniad]\n", "extends must be the name of a card"),
    "extends nothing": ("extends: nothing_there\n", "unknown strategy 'nothing_there'"),
    "unknown key": ("extends: uniad\ntitel: x\n", "did you mean 'title'"),
    "unknown preset": ("extends: uniad\npresets: {fast: {}}\n", "unknown preset 'fast'"),
    "learner missing": ("title: x\n", "is missing"),
    "learner without class": ("extends: uniad\nlearner: os\n", "must be 'module:Class'"),
    "learner not there": ("extends: uniad\nlearner: no_such_module:X\n", "cannot import learner module"),
    "learner relative": ("extends: uniad\nlearner: '.x:Y'\n", "cannot import learner module"),
    "no learner": ("extends: uniad\nlearner: os:getcwd\n", "is not an Avalanche strategy class"),
    "true for a choice": (
        "extends: patchcore\npatches: {neighbourhood: true}\n",
        "must be one of 1, 3, 5, 7",
    ),
    "empty list": ("extends: uniad\nbase: {epochs: []}\n", "must not be an empty list"),
}


@pytest.mark.parametrize("row", CARDS)
def test_cards(row, tmp_path):
    content, words = CARDS[row]
    root = parts(parts(tmp_path / "data"), "bolt")
    card = tmp_path / "mine.yaml"
    card.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = ["run", "--protocol", "mine_1_1", "--strategy", card, "--data-root", root,
                 "--results", tmp_path / "r", "--dry-run"]  # fmt: skip
    judge(tmp_path, arguments, 2, ["mine.yaml", words])


# Lists ---------------------------------------------------------------------------------------------------

GOOD = {"filename": "nut/test/good/new.png", "label": 0, "clsname": "nut"}
JSON_LINES = {
    "no JSON": ("{filename: nut}", "not a JSON object"),
    "an array": ("[1]", "not a JSON object but list"),
    "NaN for a label": ({**GOOD, "label": float("nan")}, "label is nan"),
    "infinite label": ('{"filename": "a/b/c/d.png", "label": 1e999}', "label is inf"),
    "float for a label": ({**GOOD, "label": 1.0}, "label is 1.0, must be"),
    "truth for a label": ({**GOOD, "label": True}, "label is True"),
    "number without end": (f'{{"filename": "a/b/c/d.png", "label": {DIGITS}}}', "not a JSON object"),
    "brackets without end": ("[" * 100_000, "not a JSON object"),
    "key twice": ('{"filename": "a/b/c/d.png", "label": 0, "label": 1}', "duplicate key 'label'"),
    "parent folder": ({**GOOD, "filename": "../x.png"}, "not a relative path below"),
    "absolute path": ({**GOOD, "filename": "/etc/passwd"}, "not a relative path below"),
    "path of Windows": ({**GOOD, "filename": "C:\\x.png"}, "not a relative path below"),
    "home": ({**GOOD, "filename": "~/x.png"}, "not a relative path below"),
    "null byte": ({**GOOD, "filename": "nut/a\0.png"}, "null byte"),
    "name without end": ({**GOOD, "filename": "x" * 100_000}, "too long"),
    "half a character": ({**GOOD, "filename": "nut/\ud800.png"}, "does not exist"),
    "line break": ({**GOOD, "filename": "nut/a\nb.png"}, "a\\nb.png does not exist"),
    "twice": ({**GOOD, "filename": "nut/test/good/00.png"}, "is already listed"),
    "object outside": ({**GOOD, "filename": "nut/extra.png", "clsname": "../evil"}, "cannot name an object"),
    "object without end": ({**GOOD, "filename": "nut/extra.png", "clsname": "x" * 300}, "cannot name an object"),
    "object in two lines": ({**GOOD, "filename": "nut/extra.png", "clsname": "a\nb"}, "cannot name an object"),
    "mask of a normal image": ({**GOOD, "filename": "nut/extra.png", "maskname": "nut/ground_truth/dent/000_mask.png"}, "a normal image (label 0) cannot have a mask"),
    "text of megabytes": ({**GOOD, "label": "x" * 1_000_000}, "label is 'xxx"),
    "label that its name contradicts": ({**GOOD, "label": 1, "label_name": "Normal"}, "defective by its label (1), but called 'Normal'"),
    "name that its label contradicts": ({**GOOD, "label_name": "defective"}, "normal by its label (0), but called 'defective'"),
    "key with a typo": ({**GOOD, "mask_name": "nut/x.png"}, "unknown key 'mask_name'; did you mean 'maskname'?"),
    "mask that is the image": ({**GOOD, "label": 1, "filename": "nut/extra.png", "maskname": "nut/extra.png"}, "is already listed"),
}  # fmt: skip


def json_lists(root: Path, place: Path, extra: bytes) -> tuple[Path, Path]:
    train, test = [], []
    for path in sorted(root.rglob("*.png")):
        name, split, kind = path.relative_to(root).parts[:3]
        fields = {
            "filename": path.relative_to(root).as_posix(),
            "label": int(kind == "dent"),
            "clsname": name,
        }
        if split == "ground_truth":
            continue
        if kind == "dent":
            fields["maskname"] = f"{name}/ground_truth/dent/{path.stem}_mask.png"
        (train if split == "train" else test).append(json.dumps(fields))
    (place / "train.json").write_text("\n".join(train))
    (place / "test.json").write_bytes("\n".join(test).encode() + b"\n" + extra)
    return place / "train.json", place / "test.json"


@pytest.mark.parametrize("row", JSON_LINES)
def test_json_lists(row, tmp_path):
    line, words = JSON_LINES[row]
    root = parts(parts(tmp_path / "data"), "bolt")
    extra = (line if isinstance(line, str) else json.dumps(line)).encode()
    train, test = json_lists(root, tmp_path, extra)
    put(root / "nut/extra.png")
    lists = ("--train-list", train, "--test-list", test)
    judge(tmp_path, run_arguments(root, tmp_path / "r", "mine_1_1", "uniad", *lists), 2, words)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_json_lists_in_other_encodings(encoding, tmp_path):
    root = parts(parts(tmp_path / "data"), "bolt")
    train, test = json_lists(root, tmp_path, b"")
    test.write_bytes(
        (test.read_text() + json.dumps({**GOOD, "label_name": "\u00fc"}, ensure_ascii=False)).encode(encoding)
    )
    lists = ("--train-list", train, "--test-list", test)
    judge(
        tmp_path,
        run_arguments(root, tmp_path / "r", "mine_1_1", "uniad", *lists),
        2,
        "test.json cannot be read",
    )


@pytest.mark.parametrize("option", ["--manifest", "--test-list"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [("pipe", "it is not a regular file"), ("device", "it is not a regular file"), ("large", "the limit is")],
)
def test_lists_that_never_end(option, kind, words, tmp_path):
    root, path = parts(parts(tmp_path / "data"), "bolt"), tmp_path / "all.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**28 + 1)  # of holes: nothing is written
    train, _ = json_lists(root, tmp_path, b"")
    more = ("--train-list", train) if option == "--test-list" else ()
    arguments = run_arguments(root, tmp_path / "r", "mine_1_1", "uniad", *more, option, path)
    judge(tmp_path, arguments, 2, (f"list {path} cannot be read", words))


CSV_ROWS = {
    "other columns": (b"object,set,label,image,mask\n", "line 1: the header must be"),
    "empty": (b"", "line 1: the header must be"),
    "UTF-16": ("object,split,label,image,mask\n".encode("utf-16"), "cannot be read"),
    "parent folder": (b"a,test,normal,a/../../x.JPG,\n", "not a relative path below"),
    "absolute path": (b"a,test,normal,/etc/passwd,\n", "not a relative path below"),
    "too few fields": (b"a,test,normal\n", "3 fields instead of 5"),
    "too many fields": (b"a,test,normal,x,,,,,\n", "9 fields instead of 5"),
    "field without end": (b"a,test,normal," + b"x" * 200_000 + b",\n", "cannot be read as a CSV"),
    "open quote": (b'"a,test,normal,x.JPG,\n', "cannot be read as a CSV"),
    "unknown split": (b"a,validation,normal,x.JPG,\n", "split is 'validation'"),
    "unknown label": (b"a,test,good,x.JPG,\n", "label is 'good'"),
    "defects in training": (b"a,train,anomaly,x.JPG,x.png\n", "in the training split"),
    "defect without mask": (b"a,test,anomaly,x.JPG,\na,test,anomaly,y.JPG,y.png\n", ("line 2", "has no mask")),
    "object outside": (b"../evil,test,normal,x.JPG,\n", "cannot name an object"),
    "no object": (b",test,normal,x.JPG,\n", "cannot name an object"),
    "not there": (b"a,test,normal,x.JPG,\na,train,normal,y.JPG,\n", "line 2"),
    "null byte": (b"a,test,normal,x\0.JPG,\na,train,normal,y.JPG,\n", ("1cls.csv", "null byte")),
}  # fmt: skip


@pytest.mark.parametrize("row", CSV_ROWS)
def test_the_list_of_visa(row, tmp_path):
    from iufbench.data.readers.visa import read_visa
    from iufbench.support.errors import InputError

    content, words = CSV_ROWS[row]
    table = tmp_path / "data" / "split_csv" / "1cls.csv"
    table.parent.mkdir(parents=True)
    header = b"" if row in ("other columns", "empty", "UTF-16") else b"object,split,label,image,mask\n"
    table.write_bytes(header + content)
    with pytest.raises(InputError) as caught:
        read_visa(tmp_path / "data")
    for word in (words,) if isinstance(words, str) else words:
        assert word in str(caught.value)
    judge(
        tmp_path, ["data", "check", tmp_path / "data", "--dataset", "visa", "--workers", "1"], 1, "1cls.csv"
    )


# Folders, images and masks: ``data check`` reports them all, 1 is "there are faults" ------------------------------


def bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)  # 50 kB on disk, 1.2 GB in memory


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def colours(mode: str, suffix: str):
    def replace(path: Path) -> None:
        path.unlink()
        put(path.with_suffix(suffix), mode=mode)

    return replace


def sixteen(path: Path) -> None:
    put(path, np.full((8, 10), 40_000, dtype=np.uint16))


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path.unlink()
    put(path.with_suffix(".jpg"), exif=exif)


def gaudy(path: Path) -> None:
    image = Image.fromarray(MASK // 255).convert("P")
    image.putpalette([200, 200, 0, 0, 0, 200])
    image.save(path)


IMAGE, MASKED = "nut/train/good/0.png", "nut/ground_truth/dent/000_mask.png"
FILES = {
    "image cut short": (IMAGE, cut, 1, "cannot be read as an image"),
    "image of 0 bytes": (IMAGE, lambda p: p.write_bytes(b""), 1, "is empty (0 bytes)"),
    "web page": (IMAGE, lambda p: p.write_text("<html>404</html>"), 1, "not an image in a supported format"),
    "bomb": (IMAGE, bomb, 1, "has 20000x20000 pixels"),
    "wide but flat": (IMAGE, lambda p: Image.new("L", (12_000, 12_000)).save(p), 1, "has 12000x12000 pixels"),
    "GIF by another name": (IMAGE, lambda p: put(p, format="GIF"), 1, "not an image in a supported format"),
    "PostScript by another name": (IMAGE, lambda p: put(p, format="EPS"), 1, "not an image in a supported format"),
    "floating point": (IMAGE, lambda p: put(p, np.ones((8, 10), np.float32), format="TIFF"), 1, "floating-point"),
    "a folder among images": (IMAGE, lambda p: (p.unlink(), p.mkdir()), 1, "unexpected folder"),
    "a pipe": (IMAGE, lambda p: (p.unlink(), os.mkfifo(p)), 1, "0.png is not a regular file"),
    "a device": (IMAGE, lambda p: (p.unlink(), p.symlink_to("/dev/zero")), 1, "0.png is not a regular file"),
    "a link to itself": (IMAGE, lambda p: (p.unlink(), p.symlink_to(p.name)), 1, "0.png: Too many levels of symbolic links"),
    "a document": (IMAGE, lambda p: p.rename(p.with_suffix(".docx")), 1, "is not an image file"),
    "16 bits": (IMAGE, sixteen, 0, "0 errors"),
    "CMYK": (IMAGE, colours("CMYK", ".jpg"), 0, "0 errors"),
    "palette": (IMAGE, lambda p: put(p, mode="P"), 0, "0 errors"),
    "alpha": (IMAGE, lambda p: put(p, mode="RGBA"), 0, ("an alpha channel, which is dropped", "0 errors")),
    "LAB": (IMAGE, lambda p: put(p, mode="LAB", format="TIFF"), 0, ("LAB colours, converted", "0 errors")),
    "rotated by EXIF": (IMAGE, rotated, 0, "0 errors"),
    "one pixel": (IMAGE, lambda p: put(p, np.zeros((1, 1, 3), np.uint8)), 0, "0 errors"),
    "JPEG by another name": (IMAGE, lambda p: put(p, format="JPEG"), 0, "0 errors"),
    "mask of another size": (MASKED, lambda p: put(p, MASK[:5]), 1, "is 10x5 pixels, its image"),
    "mask that marks nothing": (MASKED, lambda p: put(p, MASK * 0), 1, "marks no pixel"),
    "mask of 0 bytes": (MASKED, lambda p: p.write_bytes(b""), 1, "is empty (0 bytes)"),
    "mask that is missing": (MASKED, lambda p: p.unlink(), 1, "has no mask"),
    "mask as JPEG": (MASKED, lambda p: put(p, MASK, format="JPEG"), 1, "is a JPEG"),
    "mask in CMYK": (MASKED, lambda p: Image.new("CMYK", (10, 8)).save(p, "TIFF"), 1, "colour mode CMYK"),
    "mask in RGB": (MASKED, lambda p: put(p, MASK, mode="RGB"), 0, "0 errors"),
    "mask that marks everything": (MASKED, lambda p: put(p, MASK * 0 + 255), 0, "1 of 2 masks, such as 000_mask.png, mark most of"),
    "mask that is inverted": (MASKED, lambda p: put(p, 255 - MASK), 0, ("are they inverted?", "0 errors, 1 warnings")),
    "mask in JPEG noise": (MASKED, lambda p: put(p, MASK // 2 + np.arange(80, dtype=np.uint8).reshape(8, 10) % 23), 0, "as if smoothed"),
    "mask that lies": (MASKED, lambda p: put(p, MASK.T.copy()), 1, "rotated by 90 degrees"),
    "mask without a black ground": (MASKED, gaudy, 0, "have a palette without black"),
    "mask with an annotation beside": (MASKED, lambda p: p.with_suffix(".json").write_text("{}"), 0, "1 file or folder that is not an image"),
    "mask that is smooth": (MASKED, lambda p: put(p, np.arange(80, dtype=np.uint8).reshape(8, 10)), 0, "as if smoothed"),
    "two masks": (MASKED, lambda p: put(p.with_name("000.png"), MASK) and put(p.with_suffix(".bmp"), MASK), 1, "two masks"),
}  # fmt: skip


@pytest.mark.parametrize("row", FILES)
def test_files(row, tmp_path):
    name, spoil, code, words = FILES[row]
    root = parts(tmp_path / "data")
    spoil(root / name)
    judge(tmp_path, ["data", "check", root, "--dataset", "mine", "--workers", "1"], code, words)


FOLDERS = {
    "nothing there": (lambda r: None, 1, "contains no objects"),
    "object without training": (lambda r: put(r / "nut/test/good/0.png"), 1, "nut/train is missing"),
    "the object itself": (lambda r: (put(r / "train/good/0.png"), put(r / "test/good/0.png")), 1, "single object"),
    "object in two lines": (lambda r: parts(r, "a\nb"), 1, "cannot name an object"),
    "object that no option could name": (lambda r: parts(r, "a,b"), 1, ("cannot name an object", "no ','")),
    "object that is a missing value": (lambda r: parts(r, "NA"), 1, ("cannot name an object", "missing value")),
    "object that is a column": (lambda r: parts(r, "Mean"), 1, ("cannot name an object", "the name of a table column")),
    "object that is a device": (lambda r: parts(r, "nul"), 1, ("cannot name an object", "device name of Windows")),
    "object in Latin-1": (lambda r: parts(r, b"f\xfc\xdf".decode("utf-8", "surrogateescape")), 1, "which the bytes b'f\\xfc\\xdf' are not"),
    "normal images as a defect": (lambda r: (parts(r) / "nut/test/good").rename(r / "nut/test/NORMAL"), 1, "accept it with --good-name NORMAL"),
    "normal images in training": (lambda r: (parts(r) / "nut/train/good").rename(r / "nut/train/ok2"), 1, "accept it with --good-name ok2"),
    "folders of systems": (lambda r: [(parts(r) / n / "x").mkdir(parents=True) for n in ("@eaDir", "$RECYCLE.BIN", "nut/test/lost+found")], 0, "3 files and folders"),
    "folders of other systems": (lambda r: [(parts(r) / n / "x").mkdir(parents=True) for n in ("LOST.DIR", "FOUND.000", "nut/@Recently-Snapshot", "nut/ground_truth/CVS")], 0, "4 files and folders"),
    "texts and backups": (lambda r: [(parts(r) / "nut/train/good" / n).write_text("") for n in ("README", "0.xmp", "0.png~", "0.bak")], 0, "4 files and folders"),
    "odd names": (lambda r: parts(r, "rote M\u00fctter \u87ba\u4e1d $(ls) 'x'"), 0, "0 errors"),
    "images in two lines": (lambda r: put(parts(r) / "nut/test/good/a\nb.png"), 0, "7 images"),
    "names that are no text": (lambda r: put(parts(r) / "nut/test/good" / b"\xff.png".decode("utf-8", "surrogateescape")), 0, "7 images"),
    "bad image with such a name": (lambda r: (parts(r) / "nut/test/good" / b"\xff\n.png".decode("utf-8", "surrogateescape")).write_bytes(b""), 1, "is empty"),
    "only good test images": (lambda r: [put(r / f"nut/{s}/good/{s}.png") for s in ("train", "test")], 0, "undefined"),
}  # fmt: skip


@pytest.mark.parametrize("row", FOLDERS)
def test_folders(row, tmp_path):
    make, code, words = FOLDERS[row]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    judge(tmp_path, ["data", "check", tmp_path / "data", "--dataset", "mine", "--workers", "1"], code, words)


@pytest.mark.parametrize("row", ["image cut short", "bomb", "mask of another size", "mask that is missing"])
def test_a_run_refuses_the_same_files(row, tmp_path):
    name, spoil, _, words = FILES[row]
    root = parts(parts(tmp_path / "data"), "bolt")
    spoil(root / name)
    judge(tmp_path, run_arguments(root, tmp_path / "r"), 2, words)


def test_the_table_is_as_long_as_promised():
    assert sum(map(len, (TYPED, CARDS, JSON_LINES, CSV_ROWS, FILES, FOLDERS))) >= 60
