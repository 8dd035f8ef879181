"""The command line. Heavy imports happen inside the commands, so that ``--help`` is fast."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from iufbench.cli.bench import bench
from iufbench.cli.board import board
from iufbench.cli.data import data
from iufbench.cli.echo import echo, say_code
from iufbench.cli.extend import extend
from iufbench.cli.options import FOLDER, json_option, results_option
from iufbench.cli.predict import predict, submission
from iufbench.cli.results import compare, export, figures, report, tables
from iufbench.cli.run import evaluate, run
from iufbench.cli.score import score
from iufbench.cli.sweep import sweep
from iufbench.cli.trust import rerun, verify
from iufbench.engine.stopping import terminated_as_interrupted
from iufbench.support.errors import InputError, RunError, shown
from iufbench.support.files import json_text
from iufbench.support.memory import lacks_memory, require_addresses
from iufbench.support.version import __version__


class Commands(click.Group):
    """Turns expected errors into one line and an exit code; SIGTERM and SIGHUP clean up like Ctrl-C."""

    def invoke(self, context: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):  # file names may not be valid text but must be printable
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        # Avalanche warns about solvers that only its GEM strategy needs.
        warnings.filterwarnings("ignore", message="no QP solver found")
        try:
            require_addresses()
            with terminated_as_interrupted():
                return super().invoke(context)
        except InputError as error:
            echo(f"error: {shown(error)}", err=True)
            context.exit(2)
        except RunError as error:
            echo(f"error: {shown(error)}", err=True)
            context.exit(1)
        except (KeyboardInterrupt, click.Abort):
            is_run = context.invoked_subcommand in ("run", "sweep", "extend")
            hint = ": the same command resumes from the last checkpoint" if is_run else ""
            echo(f"\ninterrupted{hint}", err=True)
            context.exit(130)
        except (MemoryError, ImportError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            echo(f"error: not enough memory ({reason}); is there a limit, such as ulimit -v?", err=True)
            context.exit(1)
        except BrokenPipeError:
            # The reader of our output (head, less) has exited: not an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(0)
        except OSError as error:  # a full disk under redirected output, a folder that vanished
            place = f" ({error.filename})" if error.filename else _where_from()
            echo(f"error: {error.strerror or error}{place}", err=True)
            context.exit(1)


def _where_from() -> str:
    """A hint if the working folder is the one that is missing."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return ": the working folder has been deleted; change to another one"
    return ""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="iufbench")
def main() -> None:
    """Benchmark harness for incremental unified industrial anomaly detection.

    A run is one protocol x one strategy x one seed on one data set; it produces one run directory. Tables
    and figures are built from run directories and published numbers.

    \b
    First steps, no download required:
      iufbench run --protocol visa_8_1x4 --strategy iuf --synthetic
      iufbench list strategies
      iufbench tables
    """


@main.command("list")
@click.argument(
    "what", type=click.Choice(["protocols", "strategies", "datasets", "runs"]), default="protocols"
)
@results_option
@json_option
def list_(what: str, results: Path, as_json: bool) -> None:
    """List protocols, strategies, data sets or finished runs."""
    from iufbench.engine import describe

    rows = {
        "protocols": describe.protocol_rows,
        "strategies": describe.strategy_rows,
        "datasets": describe.dataset_rows,
        "runs": lambda: describe.run_rows(results),
    }[what]()
    echo(json_text(rows) if as_json else describe.columns(rows))


@main.command()
@click.argument("kind", type=click.Choice(["protocol", "strategy", "dataset", "run"]))
@click.argument("name")
@json_option
def show(kind: str, name: str, as_json: bool) -> None:
    """Show one card or one run directory.

    \b
    iufbench show strategy iuf
    iufbench show protocol "8-1 with 4 Steps"
    iufbench show run results/runs/visa-synthetic/visa_8_1x4/iuf/1a2b3c4d/seed0
    """
    from iufbench.engine import describe

    content = describe.content_of(kind, name, say_code)
    echo(json_text(content) if as_json else describe.as_text(kind, name, content))


@main.command()
@click.argument("metric")
@click.argument("path", metavar="[RUN]", type=FOLDER, required=False)
def explain(metric: str, path: Path | None) -> None:
    """Explain a metric: definition, formula, who uses it, and its value for a run directory.

    \b
    iufbench explain fm
    iufbench explain fm_final results/runs/visa-synthetic/visa_8_1x4/iuf/1a2b3c4d/seed0
    """
    from iufbench.engine.describe import explain_metric

    echo(explain_metric(metric, path))


for command in (
    run,
    evaluate,
    predict,
    submission,
    extend,
    data,
    sweep,
    score,
    tables,
    figures,
    report,
    board,
    compare,
    export,
    verify,
    rerun,
    bench,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
