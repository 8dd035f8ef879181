"""``iufbench bench``: how fast the stages of a run are on this machine."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

from iufbench.bench import STAGES
from iufbench.cards.request import MAX_THREADS
from iufbench.cli.echo import echo
from iufbench.cli.options import FILE, FOLDER, json_option, results_option, trust_option
from iufbench.support.errors import InputError
from iufbench.support.files import json_text, read_json, write_json

_SAME = ("preset", "device", "precision", "compiled", "batch", "settings")  # must match for --compare


@click.command()
@click.argument("runs", metavar="[RUN]...", type=FOLDER, nargs=-1)
@click.option(
    "--latency",
    is_flag=True,
    help="Time single images with finished runs instead [default: all below --results].",
)
@trust_option
@results_option
@click.option(
    "--stage", "stages", multiple=True, type=click.Choice(STAGES), help="Repeatable [default: all]."
)
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    default=("uniad", "iuf"),
    show_default=True,
    help="Strategy whose steps and evaluation are timed; repeatable.",
)
@click.option("--preset", type=click.Choice(["quick", "paper"]), default="quick", show_default=True)
@click.option(
    "--batch", type=click.IntRange(1, 1_000_000), help="Images per training step [default: the card's]."
)
@click.option("--repeats", type=click.IntRange(1, 1_000_000), help="[default: 5; 50 with --latency]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--threads", type=click.IntRange(1, MAX_THREADS), default=1, show_default=True, help="CPU threads."
)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Train with torch.compile.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a card key; repeatable."
)
@click.option("--out", type=FILE, help="Also write the numbers to this JSON file.")
@click.option("--compare", "old", type=FILE, help="Show speedups over an earlier --out file.")
@json_option
def bench(
    runs: tuple[Path, ...],
    latency: bool,
    trust_code: bool,
    results: Path,
    repeats: int | None,
    out: Path | None,
    old: Path | None,
    as_json: bool,
    threads: int,
    stages: tuple[str, ...],
    **given: Any,
) -> None:
    """Measure each stage of a run: decode, backbone, training step, evaluation, metrics.

    Inputs are synthetic and weights are random; no data set and no download is needed. CPU seconds are
    those of this process and hardly affected by other programs; wall seconds are elapsed time.

    \b
    iufbench bench
    iufbench bench --preset paper --stage step --strategy iuf --batch 4 --repeats 3 --out before.json
    iufbench bench --preset paper --stage step --strategy iuf --batch 4 --repeats 3 --compare before.json

    With --latency, finished runs score one photograph at a time: milliseconds for decoding, backbone and
    learner, after several experiences, with floating-point operations and energy. The result is stored as
    RUN/latency.json and appears in the cost table and figures.

    \b
    iufbench bench --latency results/runs/visa-synthetic/visa_8_1x4/iuf/1a2b3c4d/seed0
    """
    if latency:
        return _time_runs(runs, results, given["device"], threads, repeats or 50, as_json, trust_code)
    if runs:
        raise InputError(f"{runs[0]}: runs are timed with --latency only")
    given["repeats"] = repeats or 5
    before = None if old is None else _read(old)  # reject a wrong file before measuring
    import torch

    from iufbench.bench.stages import Conditions, as_dict, measure
    from iufbench.support.allocator import keep_freed_memory
    from iufbench.support.device import choose_device
    from iufbench.support.provenance import environment, now, peak_memory_mb

    given["device"] = str(choose_device(given["device"]))
    conditions = Conditions(stages=stages or STAGES, **given)
    if before is not None:
        _check_comparable(old, before, conditions)
    torch.set_num_threads(threads)
    keep_freed_memory()
    rows: list[Any] = []
    for row in measure(conditions):
        rows.append(row)
        echo(_line(row), err=as_json)
    content: dict[str, Any] = {
        "conditions": vars(conditions),
        "environment": dataclasses.asdict(environment(conditions.device, threads)),
        "measured": now(),
        "peak_memory_mb": peak_memory_mb(),
        "rows": as_dict(rows),
    }
    if out is not None:
        write_json(out, content)
    if before is not None:
        content["speedup"] = speedups = _speedups(before, content)
        for entry in speedups:
            text = (
                f"{entry['stage']} {entry['item']}: {entry['cpu']:.2f} times as fast as before (CPU seconds)"
            )
            echo(text, err=as_json)
    if as_json:
        sys.stdout.write(json_text(content))


def _time_runs(
    paths: tuple[Path, ...],
    results: Path,
    device: str,
    threads: int,
    repeats: int,
    as_json: bool,
    trust_code: bool,
) -> None:
    from iufbench.reporting.latency import Latency
    from iufbench.reporting.store import find_runs, load_run
    from iufbench.support.progress import Progress

    kept = (run for run in find_runs(results)[0] if (run.path / "checkpoints").is_dir())
    runs = [load_run(path) for path in paths] or list(kept)
    if not runs:
        raise InputError(f"there is no finished run below {results}: name runs, or give --results DIR")
    from iufbench.bench.latency import measure_latency

    found: dict[str, Latency] = {}
    for run in runs:
        measured = found[run.id] = measure_latency(run, Progress(-1), device, threads, repeats, trust_code)
        echo(f"{run.id}: {measured.device}, {threads} threads, {measured.image}", err=as_json)
        for point in measured.points:
            parts = [
                f"{name} {getattr(point, name).median:.2f}" for name in ("decode", "backbone", "learner")
            ]
            total = f"{point.total.median:.2f} ms (95 %: {point.total.p95:.2f})"
            echo(f"  {point.objects} objects: {total}: {', '.join(parts)}", err=as_json)
        flops = ", ".join(f"{name} {count / 1e9:.3g}" for name, count in measured.flops.items())
        used = measured.energy if measured.energy_j is None else f"{measured.energy_j:.3g} J per image"
        echo(f"  GFLOPs: {flops}; energy: {used}", err=as_json)
    if as_json:
        sys.stdout.write(json_text({name: dataclasses.asdict(value) for name, value in found.items()}))


def _line(row: Any) -> str:
    per_image = 1000 / row.images
    cpu = f"{row.cpu.median * per_image:.3g} ms CPU per image"
    spread = f"{row.cpu.low * per_image:.3g} to {row.cpu.high * per_image:.3g}"
    return f"{row.stage:9} {row.item:36} {cpu:24} ({spread}), {row.images_per_s:.3g} images/s"


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content.get("rows"), list) or not isinstance(content.get("conditions"), dict):
        raise InputError(f"--compare {path}: is not a file that 'iufbench bench --out' wrote")
    return content


def _check_comparable(path: Path | None, before: dict[str, Any], conditions: Any) -> None:
    for name in _SAME:
        then, now = before["conditions"].get(name), getattr(conditions, name)
        if then != (list(now) if isinstance(now, tuple) else now):
            raise InputError(f"--compare {path}: was measured with {name} {then}, not {now}")


def _speedups(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Old over new median CPU seconds per image, of the stages that both files have."""
    old = {(r["stage"], r["item"]): r["cpu_s"]["median"] / r["images"] for r in before["rows"]}
    return [
        {
            "stage": r["stage"],
            "item": r["item"],
            "cpu": old[r["stage"], r["item"]] / (r["cpu_s"]["median"] / r["images"]),
        }
        for r in after["rows"]
        if (r["stage"], r["item"]) in old
    ]
