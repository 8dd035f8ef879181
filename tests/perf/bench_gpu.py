"""One command for a machine with a GPU: does it agree with the CPU, how fast is it, what holds it back?

Checks that anomaly maps and losses agree between CPU and device (float32, bf16), measures training (eager and
captured, with the milliseconds of each part and of both forms of IUF's compression loss) and evaluation of
every strategy asked for on random features, says which resource is the limit, projects the wall time of the
seven full protocols and of three seeds of all of them, and times one whole run. Prints lines, writes JSON
and a table in Markdown, exits 1 when the device disagrees. What has not begun after --minutes is left out,
and named.

Usage: python tests/perf/bench_gpu.py [--device cuda] [--strategy uniad --strategy iuf ...] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_step import compression_ms, counted, parts_of
from projection import hours

from iufbench.bench.learner import build_learner
from iufbench.bench.stages import Conditions, measure
from iufbench.bench.timing import Spread, synchronising, take_turns
from iufbench.engine import api
from iufbench.engine.kernels import kernel_seconds
from iufbench.learning.step import Step
from iufbench.support.allocator import keep_freed_memory
from iufbench.support.device import choose_precision
from iufbench.support.errors import InputError
from iufbench.support.files import write_json
from iufbench.support.provenance import environment, now, peak_memory_mb

STRATEGIES = ("uniad", "iuf", "iuf_release", "ewc", "lwf", "replay")
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}  # of the largest value; bfloat16 keeps 8 bits
EXACT = ("network.dropout=0.0", "network.jitter_scale=0.0")  # noise is drawn differently on each device
BUSY, SHARE = 0.7, 0.5
FORMS = ("eager", "auto")  # of a step; captured with auto where the strategy allows it
SEEDS = 3  # of a study


def settings_of(given: argparse.Namespace, batch: int, epochs: int = 1) -> list[str]:
    parts = ("base", "increment")
    sizes = [f"{p}.{k}" for p in parts for k in (f"batch_size={batch}", f"epochs={epochs}")]
    return [*given.set, *sizes]


def agreement(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Three training steps and the maps afterwards, on the CPU and on the device, from the same start."""

    def trained(device: str, precision: str) -> tuple[np.ndarray, float]:
        batch = given.agreement_batch
        settings = [*settings_of(given, batch, epochs=3), *EXACT]
        learner = build_learner(name, given.preset, [[batch]], 4, device, settings, precision, compiled=False)
        strategy = learner.strategy
        strategy.train(learner.streams.train[0], eval_streams=[])
        kept: list[np.ndarray] = []
        learner.evaluation.on_maps = lambda test, maps: kept.append(maps)
        learner.evaluation.start(0, 1)
        strategy.eval([learner.streams.test[0]], untrained=True)
        learner.evaluation.judge(0)
        return kept[0], strategy.training_log[-1]["reconstruction"]

    maps, loss = trained("cpu", "fp32")
    found = []
    for precision, tolerance in TOLERANCE.items():
        theirs, their_loss = trained(given.device, precision)
        difference = float(np.abs(maps - theirs).max() / np.abs(maps).max())
        loss_difference = abs(their_loss / loss - 1)
        agrees = max(difference, loss_difference) <= tolerance
        found.append(
            {
                "strategy": name,
                "precision": precision,
                "maps": difference,
                "loss": loss_difference,
                "tolerance": tolerance,
                "agrees": agrees,
            }
        )
        print(
            f"agreement {name} {precision}: maps {difference:.1e}, loss {loss_difference:.1e} "
            f"(tolerance {tolerance}) {'ok' if agrees else 'DISAGREES'}",
            flush=True,
        )
    return found


def peaks(given: argparse.Namespace) -> dict[str, float]:
    """What the device reaches on nothing but a matrix product (FLOP/s) and a copy (bytes/s)."""
    side = given.peak_size
    reached = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(side, side, device=given.device, dtype=dtype)
        reached[precision] = 2 * side**3 / _best(lambda a=a: a @ a, given)
    block = torch.empty(16 * side * side, dtype=torch.uint8, device=given.device)
    target = torch.empty_like(block)
    reached["bytes_per_s"] = 2 * block.numel() / _best(lambda: target.copy_(block), given)
    return reached


def _best(call: Callable[[], object], given: argparse.Namespace) -> float:
    return min(take_turns({"": call}, 5, synchronising(given.device))[""].wall)


def training(
    name: str, precision: str, form: str, top: dict[str, float], given: argparse.Namespace
) -> dict[str, Any]:
    """Images a second of an increment's step, memory, and the resource that is the limit."""
    cuda = given.device.startswith("cuda")
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    learner = build_learner(
        name,
        given.preset,
        [[given.batch], [given.batch]],
        2,
        given.device,
        settings_of(given, given.batch),
        precision,
        compiled=given.compile,
        step=form,
    )
    step = learner.stepper(1)
    timing = take_turns({"": step}, given.repeats, synchronising(given.device), warm_up=4)[""]
    wall = Spread.of(timing.wall)
    busy = _busy(step, wall.median, given) if cuda else min(1.0, Spread.of(timing.cpu).median / wall.median)
    operations = counted(learner.strategy, step)
    share = operations / wall.median / top[precision]
    running = learner.strategy._step
    captured = isinstance(running, Step) and bool(running._graphs)
    limit = "host" if busy < BUSY else ("arithmetic" if share > SHARE else "memory traffic")
    if cuda:
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        memory = peak_memory_mb()
    row = {
        "strategy": name,
        "precision": precision,
        "step": "captured" if captured else "eager",
        "images_per_s": given.batch / wall.median,
        "parts_ms": parts_of(learner.strategy, step, given.device),
        "step_s": vars(wall),
        "busy": busy,
        "flop_per_step": operations,
        "share_of_peak": share,
        "limit": limit,
        "peak_memory_mib": memory,
    }
    print(
        f"step {name} {precision} {row['step']}: {row['images_per_s']:.1f} images/s, busy {busy:.0%}, "
        f"{share:.0%} of peak FLOP/s, limit: {limit}, {memory:.0f} MiB",
        flush=True,
    )
    return row


def _busy(step: Callable[[], object], wall: float, given: argparse.Namespace) -> float:
    """Seconds in which a kernel ran, of the wall seconds of an unprofiled step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        step()
        torch.cuda.synchronize()
    return min(1.0, kernel_seconds(recorded) / wall)


def project(name: str, speeds: dict[str, float]) -> list[dict[str, Any]]:
    found = [{"protocol": p, "strategy": name, "hours": h} for p, h in hours(name, speeds)]
    for row in found:
        print(f"projected {name} {row['protocol']}: {row['hours']:.2f} h", flush=True)
    return found


def whole_run(given: argparse.Namespace) -> dict[str, Any]:
    """One run from images to figures with the quick preset, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = api.run(
            given.run,
            "iuf",
            synthetic=given.data_root is None,
            data_root=given.data_root,
            preset="quick",
            device=given.device,
            settings=given.set,
            results=folder,
            quiet=True,
        )
        seconds, record = time.perf_counter() - started, run.record
    row = {
        "run": run.id,
        "seconds": seconds,
        "stages_s": dataclasses.asdict(record.seconds),
        "train_images_per_s": record.costs.train_images_per_s,
        "kernel_share": record.costs.kernel_share,
    }
    print(f"run {run.id}: {seconds:.1f} s, training {row['train_images_per_s']:.0f} images/s", flush=True)
    return row


def table(device: str, found: dict[str, Any]) -> str:
    """The results as a table in Markdown, for docs/speed.md."""
    lines = [
        f"Measured on {device}, batch {found['batch']}:",
        "",
        "| strategy | precision | step | images/s | kernels busy | share of peak | limit | MiB |",
        "|---|---|---|---:|---:|---:|---|---:|",
    ]
    lines += [
        f"| `{r['strategy']}` | {r['precision']} | {r['step']} | {r['images_per_s']:,.0f} | "
        f"{r['busy']:.0%} | {r['share_of_peak']:.0%} | {r['limit']} | {r['peak_memory_mib']:,.0f} |"
        for r in found["steps"]
    ]
    lines += ["", "| strategy | hours of the seven protocols | of three seeds |", "|---|---:|---:|"]
    lines += [f"| `{name}` | {hours:.2f} | {SEEDS * hours:.2f} |" for name, hours in found["hours"].items()]
    total = sum(found["hours"].values())
    forms = " and ".join(f"{ms:.1f} ms by {form}" for form, ms in found["compression_ms"].items())
    return "\n".join(
        [*lines, f"| all | {total:.2f} | {SEEDS * total:.2f} |", "", f"IUF's compression loss: {forms}.", ""]
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--strategy", action="append", help=f"repeatable [default: {', '.join(STRATEGIES)}]")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--agreement-batch", type=int, default=2, help="images a step that the CPU does too")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which nothing new begins")
    parser.add_argument("--run", default="visa_8_1x4", help="protocol of the whole run, or none")
    parser.add_argument("--data-root", type=Path, help="its data [default: synthetic]")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--peak-size", type=int, default=8192, help="side of the matrices for the peak")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench-gpu.json"))
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device is available here (--device cpu runs the same on the CPU)", file=sys.stderr)
        return 2
    keep_freed_memory()
    names, started = given.strategy or list(STRATEGIES), time.perf_counter()
    try:
        top = peaks(given)
        skipped: list[str] = []

        def in_time(what: str) -> bool:
            if time.perf_counter() - started > 60 * given.minutes:
                skipped.append(what)
            return not skipped

        forms = FORMS if given.device.startswith("cuda") else FORMS[:1]
        agreed = [row for n in names if in_time(f"agreement {n}") for row in agreement(n, given)]
        steps = [
            training(n, p, f, top, given)
            for n in names
            for p in TOLERANCE
            for f in forms
            if in_time(f"step {n} {p} {f}")
        ]
        conditions = Conditions(
            preset=given.preset,
            strategies=tuple(names),
            stages=("backbone", "evaluate"),
            device=given.device,
            repeats=3,
            settings=tuple(given.set),
        )
        others = {(row.stage, row.item): row.images_per_s for row in measure(conditions)}
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    backbone = next(speed for (stage, _), speed in others.items() if stage == "backbone")
    usual = choose_precision("auto", given.device)
    projections, hours_of = [], {}
    for name in names:
        rows = [row for row in steps if row["strategy"] == name and row["precision"] == usual]
        if rows:
            speeds = {
                "train": max(row["images_per_s"] for row in rows),
                "evaluate": others["evaluate", name],
                "backbone": backbone,
            }
            projections += project(name, speeds)
            hours_of[name] = sum(row["hours"] for row in projections if row["strategy"] == name)
    whole = whole_run(given) if given.run != "none" and in_time("whole run") else None
    device = torch.cuda.get_device_name() if given.device.startswith("cuda") else "CPU"
    found = {
        "device": device,
        "environment": dataclasses.asdict(environment(given.device, torch.get_num_threads())),
        "measured": now(),
        "batch": given.batch,
        "peak": top,
        "agreement": agreed,
        "steps": steps,
        "compression_ms": compression_ms(given.device, given.batch, given.repeats),
        "images_per_s": {f"{stage} {item}": speed for (stage, item), speed in others.items()},
        "projections": projections,
        "hours": hours_of,
        "projections_rest_on": (
            "official image counts, the paper preset's epochs and this machine's images/s on random "
            "features; reading and decoding the images once is not included"
        ),
        "run": whole,
        "skipped": skipped,
        "seconds": time.perf_counter() - started,
    }
    write_json(given.out, found)
    text = table(device, found)
    given.out.with_suffix(".md").write_text(text)
    print(text)
    for what in skipped:
        print(f"not measured, {given.minutes:g} minutes are over: {what}")
    print(f"written: {given.out}, {given.out.with_suffix('.md')}")
    return 0 if all(row["agrees"] for row in agreed) else 1


if __name__ == "__main__":
    raise SystemExit(main())
