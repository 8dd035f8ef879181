"""Architecture: imports run in one direction, and light commands import no heavy modules."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the top of the house to its ground: a module imports from its own room and from rooms below it.
HARNESS = "cli sweeps trust bench engine reporting learning streams evaluation data cards models metrics"
FLOORS = [*HARNESS.split(), "support"]
LIGHT = ("cards.strategies", "cards.registry", "cards.protocols", "cards.request", "reporting.store")
LIGHT += ("reporting.tables.build", "reporting.figures.build", "engine.describe", "cli.main", "engine.plan")


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the harness and its rooms."""
    found = {}
    for room, folder in (
        ("iufbench", "iufbench"),
        *((f"iufbench.{r}", r) for r in ("strategies", "benchmarks")),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((room, *(p for p in parts if p != "__init__")))] = path
    return found


MODULES = modules()


def imports_of(module: str) -> set[str]:
    """The project's modules that a module imports, at its top or inside a function."""
    path, names = MODULES[module], set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names}
    return names


def room_of(module: str) -> str:
    return (module.split(".") + [""])[1]


def test_every_room_has_a_floor():
    rooms = {p.name for p in (ROOT / "iufbench").iterdir() if p.is_dir() and not p.is_symlink()}
    assert rooms - {"__pycache__"} == set(FLOORS)


def test_imports_run_down_the_floors():
    upward = [
        f"{module} -> {target}"
        for module in MODULES
        for target in imports_of(module) & MODULES.keys()
        if room_of(module) in FLOORS and room_of(target) in FLOORS
        if FLOORS.index(room_of(target)) < FLOORS.index(room_of(module))
    ]
    assert not upward


def test_no_module_imports_itself_in_a_circle():
    graph = {module: imports_of(module) & MODULES.keys() for module in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_harness_knows_no_strategy_and_no_benchmark():
    for module in MODULES:
        if room_of(module) in FLOORS:
            bad = {
                n for n in imports_of(module) if n.startswith(("iufbench.strategies", "iufbench.benchmarks"))
            }
            assert not bad, f"{module} imports {bad}"


def test_strategies_stand_on_learning_and_what_is_below_it():
    allowed = {"strategies", *FLOORS[FLOORS.index("learning") :]}
    for module in MODULES:
        if room_of(module) == "strategies":
            assert {room_of(n) for n in imports_of(module) if n.startswith("iufbench.")} <= allowed, module


def test_strategies_holds_methods_and_benchmarks_holds_data():
    cards = {p.stem for p in (ROOT / "strategies").glob("*.yaml")}
    assert {p.stem for p in (ROOT / "strategies").glob("*.py")} - {"__init__"} <= cards
    assert {p.name for p in (ROOT / "benchmarks").rglob("*.py")} == {"__init__.py"}


@pytest.mark.parametrize("room", ["models", "metrics", "data", "cards", "reporting", "support"])
def test_rooms_without_avalanche(room):
    for module in MODULES:
        if room_of(module) == room:
            assert not {n for n in imports_of(module) if n.split(".")[0] == "avalanche"}, module


def test_avalanche_is_imported_through_the_framework_module():
    """Before anything else, or a home folder that cannot be written stops the import."""
    guard = "iufbench.support.framework"
    for module in sorted(MODULES):
        names = [
            node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        if any((name or "").split(".")[0] == "avalanche" for name in names):
            assert next(n for n in names if n != "__future__") == guard, module


def test_metrics_know_no_torch():
    for module in MODULES:
        if room_of(module) == "metrics":
            assert not {n for n in imports_of(module) if n.split(".")[0] == "torch"}, module


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
        "from click.testing import CliRunner\nfrom iufbench.cli.main import main\n"
        f"r = CliRunner().invoke(main, {arguments!r})\nassert r.exit_code == 0, r.output"
    )
    assert heavy_modules_after(code) == "[]"


def test_help_answers_within_a_second():
    """In CPU time, which does not depend on the load of the machine."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "iufbench", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 1.0


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_no_file_that_the_project_needs():
    """A fresh clone is complete: an ignored fixture would pass here and fail there."""
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--"]
    rooms = ["tests", "iufbench", "strategies", "benchmarks", "docs", "results/published"]
    ignored = subprocess.run([*command, *rooms], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not [n for n in ignored.stdout.splitlines() if "__pycache__/" not in n]
