"""``iufbench bench``: how fast the stages of a run are on this machine."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

from iufbench.bench import STAGES
from iufbench.cli.echo import echo
from iufbench.cli.options import FILE, json_option
from iufbench.support.errors import InputError
from iufbench.support.files import json_text, read_json, write_json

_SAME = ("preset", "device", "precision", "compiled", "batch", "settings")  # must match for --compare


@click.command()
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
@click.option("--batch", type=click.IntRange(1), help="Images per training step [default: the card's].")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Train with torch.compile.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a card key; repeatable."
)
@click.option("--out", type=FILE, help="Also write the numbers to this JSON file.")
@click.option("--compare", "old", type=FILE, help="Show speedups over an earlier --out file.")
@json_option
def bench(
    out: Path | None, old: Path | None, as_json: bool, threads: int, stages: tuple[str, ...], **given: Any
) -> None:
    """Measure each stage of a run: decode, backbone, training step, evaluation, metrics.

    Inputs are synthetic and weights are random; no data set and no download is needed. CPU seconds are
    those of this process and hardly affected by other programs; wall seconds are elapsed time.

    \b
    iufbench bench
    iufbench bench --preset paper --stage step --strategy iuf --batch 4 --repeats 3 --out before.json
    iufbench bench --preset paper --stage step --strategy iuf --batch 4 --repeats 3 --compare before.json
    """
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
