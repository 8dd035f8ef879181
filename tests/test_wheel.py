"""The wheel is complete for runs from any folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's content, unpacked into a separate folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    skipped = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "runs", "__pycache__", ".*cache")
    shutil.copytree(ROOT, source, ignore=skipped)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(source)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_cards_published_numbers_and_rooms_are_inside(installed):
    for pattern, count in (
        ("strategies/*.yaml", len(list((ROOT / "strategies").glob("*.yaml")))),
        ("benchmarks/protocols/*.yaml", len(list((ROOT / "benchmarks/protocols").glob("*.yaml")))),
        ("benchmarks/datasets/*.yaml", len(list((ROOT / "benchmarks/datasets").glob("*.yaml")))),
        ("benchmarks/grids/*.yaml", len(list((ROOT / "benchmarks/grids").glob("*.yaml")))),
        ("published/*.csv", len(list((ROOT / "results/published").glob("*.csv")))),
        ("reporting/report/templates/*", len(list((ROOT / "iufbench/reporting/report/templates").iterdir()))),
        ("strategies/*.py", len(list((ROOT / "strategies").glob("*.py")))),
    ):
        assert len(list((installed / "iufbench").glob(pattern))) == count, pattern
    tops = {p.name for p in installed.iterdir() if not p.name.endswith(".dist-info")}
    assert tops == {"iufbench"}


def test_the_installed_package_answers_from_any_folder(installed, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import iufbench.cli.main; assert iufbench.cli.main.__file__.startswith(sys.path[0])\n"
        "iufbench.cli.main.main(['show', 'protocol', 'visa_8_1x4'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pipe_fryum" in done.stdout
