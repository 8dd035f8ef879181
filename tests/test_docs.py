"""README and pages are correct: commands parse, snippets run, types check, the site builds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from tiny import SETTINGS

from iufbench.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced code blocks of one language."""
    return [body for kind, body in re.findall(r"```(\w*)[^\n]*\n(.*?)```", text, re.S) if kind == language]


def commands(text: str) -> list[list[str]]:
    """The arguments of every ``iufbench`` command line in a page's code blocks, fenced or indented."""
    text = text.replace("\\\n", " ")  # a command over several lines
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    lines = [line.strip() for block in blocks(text) for line in block.splitlines()] + indented
    found = [re.sub(r"^(\.venv/bin/|\$ )", "", line.strip()) for line in lines]
    return [shlex.split(x, comments=True)[1:] for x in found if re.match(r"iufbench [a-z]+ [^|`]*$", x)]


def parse(arguments: list[str]) -> None:
    """Parse a command line as click would, without running it; placeholders (upper case) are values."""
    command, context = main, click.Context(main, info_name="iufbench")
    rest = list(arguments)
    while isinstance(command, click.Group):
        command.parse_args(context, rest)  # a group may have a command that need not be named
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, f"there is no command {name!r}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_parser(context).parse_args(args=rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_command_on_a_page_exists_with_its_options(page):
    for arguments in commands(page.read_text(encoding="utf-8")):
        try:
            parse(arguments)
        except (click.UsageError, AssertionError) as error:
            pytest.fail(f"iufbench {shlex.join(arguments)}: {error}")


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def small(arguments: list[str], data: Path, results: Path) -> list[str]:
    """Run a command of the README on tiny data: two objects, then one; a tiny network; a separate folder."""
    names = {"visa_8_1x4": "visa_2_1"}
    words = [names.get(word, word) for word in arguments]
    if "--synthetic" in words:
        at = words.index("--synthetic")
        words[at : at + 1] = ["--data-root", str(data)]
    if words[0] == "run":
        words += ["--threads", "1", *(w for s in SETTINGS for w in ("--set", s))]
    if words[0] != "explain" and words[:2] not in (["list", "strategies"],):
        words += ["--results", str(results)]
    return words


@pytest.fixture(scope="module")
def readme_runs(data, tmp_path_factory):
    """A folder with the README's runs and its own strategy."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "mine.py").write_text(blocks(README, "python")[1])
    (folder / "mine.yaml").write_text(blocks(README, "yaml")[0])
    runs = [c for c in commands(README) if c[0] == "run" and "--synthetic" in c]
    assert len(runs) == 2  # the demo, and the strategy of one's own
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for arguments in [
            *runs,
            ["run", "--protocol", "visa_8_1x4", "--strategy", "finetune", "--synthetic"],
        ]:
            words = small(arguments, data, folder / "results")
            done = CliRunner().invoke(main, words, catch_exceptions=False)
            assert done.exit_code == 0, done.output
    return folder


def test_the_commands_that_the_readme_names_work(readme_runs, monkeypatch):
    monkeypatch.chdir(readme_runs)
    named = re.findall(r"`iufbench ([^`]+)`", README)
    assert len(named) >= 7
    for line in named:
        words = small(shlex.split(line), Path(), readme_runs / "results")
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        assert done.exit_code == 0, (line, done.output)


def test_the_readmes_python_snippet_runs(readme_runs, data, monkeypatch, capsys):
    import iufbench as ib

    monkeypatch.chdir(readme_runs)
    run = ib.run

    def small_run(**arguments):
        assert arguments == {"protocol": "visa_8_1x4", "strategy": "replay", "synthetic": True}
        return run(protocol="visa_2_1", strategy="replay", data_root=data, settings=SETTINGS, threads=1)

    monkeypatch.setattr(ib, "run", small_run)
    exec(compile(blocks(README, "python")[0], "README.md", "exec"), {})
    assert "iuf" in capsys.readouterr().out


def test_an_editor_resolves_what_newcomers_write(tmp_path):
    """mypy on the README's strategy and on the template, in a fresh editable install."""
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text("\n".join({sysconfig.get_path("purelib"), *_plain_paths()}))
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--no-build-isolation", "-e", ROOT], check=True, capture_output=True)
    (tmp_path / "mine.py").write_text(blocks(README, "python")[1])
    (tmp_path / "my_strategy.py").write_text((ROOT / "docs/template/my_strategy.py").read_text())
    # Following torch costs half a minute and is not what is asked here.
    skipped = ("torch", "avalanche", "numpy", "torchvision", "timm", "pandas", "scipy", "PIL")
    config = "[mypy]\nstrict = True\n" + "".join(f"[mypy-{m}.*]\nfollow_imports = skip\n" for m in skipped)
    (tmp_path / "mypy.ini").write_text(config)
    words = [python, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache"]
    files = ["mine.py", "my_strategy.py"]
    done = subprocess.run([*words, *files], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "wrong.py").write_text(
        "from iufbench.learning import ReconstructionStrategy\n\n\n"
        "class Wrong(ReconstructionStrategy):\n    def adapt_network(self) -> int:\n        return 1\n"
    )
    done = subprocess.run([*words, "wrong.py"], cwd=tmp_path, capture_output=True, text=True)
    assert "incompatible with return type" in done.stdout  # the types are there, not just the names


def _plain_paths() -> list[str]:
    """Further site-packages of a layered environment."""
    return [p for p in sys.path if p.endswith("site-packages")]


def test_the_site_builds_without_warnings(tmp_path):
    pytest.importorskip("mkdocs")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        tmp_path / "site",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    strategies = (tmp_path / "site" / "strategies" / "index.html").read_text()
    assert all(f'id="{p.stem}"' in strategies for p in (ROOT / "strategies").glob("[a-z]*.yaml"))
