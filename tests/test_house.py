"""The house keeps its shape: imports run one way, and light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIGHT = ("cards", "registry", "protocols", "store", "tables", "figures", "describe", "cli", "plan")


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_harness_never_imports_the_rooms():
    for path in (ROOT / "iufbench").rglob("*.py"):
        bad = {
            n for n in imported_modules(path) if n.startswith(("iufbench.strategies", "iufbench.benchmarks"))
        }
        assert not bad, f"{path} imports {bad}"


@pytest.mark.parametrize("folder", ["models", "metrics", "data"])
def test_rooms_without_avalanche(folder):
    for path in (ROOT / "iufbench" / folder).rglob("*.py"):
        bad = {n for n in imported_modules(path) if n.split(".")[0] == "avalanche"}
        assert not bad, f"{path} imports {bad}"


def test_metrics_know_no_torch():
    for path in (ROOT / "iufbench" / "metrics").rglob("*.py"):
        assert not {n for n in imported_modules(path) if n.split(".")[0] == "torch"}, path


def test_strategies_and_benchmarks_import_relatively_or_from_the_harness():
    for room in ("strategies", "benchmarks"):
        for path in (ROOT / room).glob("*.py"):
            bad = {n for n in imported_modules(path) if n.startswith(f"iufbench.{room}")}
            assert not bad, f"{path} imports {bad} absolutely"


def heavy_modules_after(code: str) -> str:
    check = "import sys; print([m for m in ('torch', 'avalanche') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_neither_torch_nor_avalanche(module):
    assert heavy_modules_after(f"import iufbench.{module}") == "[]"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list", "strategies"], ["list", "runs"]]
)
def test_light_commands_import_neither_torch_nor_avalanche(arguments):
    code = (
        "from click.testing import CliRunner\nfrom iufbench.cli import main\n"
        f"r = CliRunner().invoke(main, {arguments!r})\nassert r.exit_code == 0, r.output"
    )
    assert heavy_modules_after(code) == "[]"


def test_help_answers_within_a_second():
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "iufbench.cli", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(once() for _ in range(3)) < 1.0


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_no_file_that_the_project_needs():
    """A fresh clone has everything: an ignored fixture passes here and fails there."""
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--"]
    rooms = ["tests", "iufbench", "strategies", "benchmarks", "docs", "results/published"]
    ignored = subprocess.run([*command, *rooms], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not [n for n in ignored.stdout.splitlines() if "__pycache__/" not in n]
