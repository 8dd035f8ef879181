"""Run directories with made-up numbers, for tests of what reads results. Nothing here was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from iufbench.reporting import store
from iufbench.reporting.record import (
    BackboneRecord,
    Costs,
    DatasetRecord,
    ObjectThresholds,
    ProtocolRecord,
    RunRecord,
    Seconds,
    StrategyRecord,
    ThresholdRecord,
    record_from,
)
from iufbench.support.provenance import Environment

MVTEC = [
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
]
VISA = [
    "candle",
    "capsules",
    "cashew",
    "chewinggum",
    "fryum",
    "macaroni1",
    "macaroni2",
    "pcb1",
    "pcb2",
    "pcb3",
    "pcb4",
    "pipe_fryum",
]
ELPV = ["mono", "poly"]
OBJECTS = {"mvtec": MVTEC, "visa": VISA, "elpv": ELPV}


def experiences_of(protocol: str) -> list[list[str]]:
    """The experiences of ``<dataset>_<X>_<Y>[x<N>]`` in alphabetical order, ``+order<k>`` rotated by k."""
    dataset, base, rest = protocol.partition("+")[0].split("_")
    size, _, steps = rest.partition("x")
    turn = int(protocol.partition("+order")[2] or 0)
    objects = OBJECTS[dataset][turn:] + OBJECTS[dataset][:turn]
    cuts = [int(base) + int(size) * k for k in range(int(steps or 1) + 1)]
    return [objects[a:b] for a, b in zip([0, *cuts], cuts)]


def fake_matrix(protocol: str, level: str, keep: float = 0.9, seed: int = 0) -> np.ndarray:
    """A plausible R [T, O]: near 0.95 when learned; what is above 0.55 shrinks by ``keep`` at each step."""
    experiences = experiences_of(protocol)
    rng = np.random.default_rng([seed, level == "pixel", len(experiences)])
    introduced = np.repeat(np.arange(len(experiences)), [len(e) for e in experiences])
    start = rng.uniform(0.86, 0.995, len(introduced))
    rows = []
    for t in range(len(experiences)):
        age = np.maximum(t - introduced, 0)
        lost = (start - 0.55) * (1 - keep**age)
        noise = rng.normal(0, 0.006, len(introduced))
        rows.append(np.where(introduced <= t, np.clip(start - lost + noise, 0, 1), np.nan))
    return np.array(rows)


def make_run(
    results: Path,
    protocol: str = "visa_8_1x4",
    strategy: str = "iuf",
    seed: int = 0,
    *,
    image: np.ndarray | None = None,
    pixel: np.ndarray | None = None,
    keep: float = 0.9,
    synthetic: bool = False,
    masks: bool = True,
    joint: bool = False,
    scores: bool = False,
    status: str = "complete",
    recipe_hash: str = "0a1b2c3d",
    alarms: np.ndarray | None = None,
    **changes: Any,
) -> Path:
    """Write one run directory and return its path; ``changes`` replaces keys of run.json.

    With ``joint`` all objects are trained at once. With ``scores`` the image metrics are made from invented
    per-image scores, so that both agree. ``alarms`` [T, O] makes it a run with thresholds and
    these false-alarm rates at the frozen ones.
    """
    dataset = protocol.split("_")[0] + ("-synthetic" if synthetic else "")
    experiences = experiences_of(protocol)
    objects = [o for e in experiences for o in e]
    introduced = {o: t for t, e in enumerate(experiences) for o in e}
    if joint:
        experiences, introduced = [objects], dict.fromkeys(objects, 0)
    matrices = {}
    for level, given in (("image", image), ("pixel", pixel)):
        if level == "image" or masks:
            made = fake_matrix(protocol, level, keep, seed)[-len(experiences) :] if given is None else given
            matrices[level] = np.array(made)
    steps = range(len(experiences))
    images = _fake_scores(objects, introduced, len(experiences), seed) if scores else {}
    for (t, obj), (good, bad) in images.items():
        matrices["image"][t, objects.index(obj)] = float(np.mean(bad[:, None] > good[None, :]))
    record = RunRecord(
        iufbench="0.1.0",
        id=store.run_id(dataset, protocol, strategy, recipe_hash, seed),
        status=status,
        dataset=DatasetRecord(
            name=dataset,
            title={"mvtec": "MVTec AD", "visa": "VisA", "elpv": "ELPV"}[protocol.split("_")[0]]
            + (" (synthetic)" if synthetic else ""),
            synthetic=synthetic,
            fingerprint="f00d" * 16,
            has_masks=masks,
            licence="invented for tests",
            counts={o: {"train": 40, "test": 30} for o in objects},
        ),
        protocol=ProtocolRecord(
            id=protocol,
            title=TITLES.get(protocol.partition("+")[0], protocol.partition("+")[0]),
            order="alphabetical",
            experiences=experiences,
        ),
        strategy=StrategyRecord(
            name=strategy,
            title=STRATEGY_TITLES.get(strategy, strategy),
            version=1,
            uses={
                "object_id_at_training": strategy == "iuf",
                "object_id_at_test": False,
                "stored_images": 0,
                "stored_bytes": 0,
                "gradients": True,
            },
        ),
        recipe={"title": strategy, "base": {"epochs": 3}},
        recipe_hash=recipe_hash,
        preset="paper",
        seed=seed,
        seeds={"torch": seed},
        backbone=BackboneRecord("tf_efficientnet_b4", "b4.pth", "ab" * 32, False),
        image_size=224,
        map_size=224,
        environment=Environment(python="3.11", packages={"torch": "2.5"}, device="cpu", threads=2),
        command=f"iufbench run --protocol {protocol} --strategy {strategy} --seed {seed}",
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:10:00Z",
        seconds=Seconds(features=12.5, train=300.0 + seed, evaluate=60.0, total=380.0),
        costs=Costs(
            parameters_total=12_345_678,
            parameters_trainable=7_654_321,
            bytes_kept=[1_000_000 * (t + 1) for t in steps],
            replayed_images=[0 for _ in steps],
            trained_images=[1000 + 10 * t for t in steps],
            train_seconds=[200.0 + t for t in steps],
            peak_memory_mb=812.5,
            train_images_per_s=45.6,
        ),
    )
    path = store.run_path(results, dataset, protocol, strategy, recipe_hash, seed)
    summary: dict[str, dict[str, float]] = {}
    for level, values in matrices.items():
        curve = [values[t, [introduced[o] <= t for o in objects]].mean() for t in steps]
        summary[level] = {
            "acc": float(np.mean(curve)),
            "acc_final": float(curve[-1]),
            "fm": float(np.mean([curve[0] - c for c in curve[1:]])) if curve[1:] else None,
        }
    if alarms is not None:
        own = {o: ObjectThresholds(20 + 20 * i, 1.0, 1.0, 1.0, 1.0) for i, o in enumerate(objects)}
        record.thresholds = ThresholdRecord("quantile 0.95", "mean+3sd", 0.1, own, 1.0, 1.0)
    store.write_record(path, record_from({**record.as_dict(), "summary": summary, **changes}, path))
    for t in steps:
        metric_rows, score_rows = [], []
        for i, obj in enumerate(objects):
            seen = introduced[obj] <= t
            for level, values in matrices.items():
                if not np.isnan(values[t, i]) or seen:
                    metric_rows.append(store.MetricRow(obj, level, "auroc", values[t, i], seen))
            if alarms is not None and seen:
                rates = dict.fromkeys(AT_THRESHOLDS, 0.5) | {"false_alarm_frozen": float(alarms[t, i])}
                metric_rows += [store.MetricRow(obj, "image", m, v, seen) for m, v in rates.items()]
            good, bad = images.get((t, obj), ((), ()))
            score_rows += [store.ScoreRow(obj, f"{obj}/good/{n}.png", 0, s) for n, s in enumerate(good)]
            score_rows += [store.ScoreRow(obj, f"{obj}/bad/{n}.png", 1, s) for n, s in enumerate(bad)]
        store.record_experience(path, t, metric_rows, score_rows)
        store.record_training(path, t, [{"epoch": 0, "loss": 1.0 / (t + 1), "lr": 1e-4}])
    return path


def _fake_scores(
    objects: list[str], introduced: dict[str, int], steps: int, seed: int
) -> dict[tuple[int, str], tuple[np.ndarray, np.ndarray]]:
    """Invented scores of 12 normal and 18 defective images, drifting together as the stream goes on."""
    rng = np.random.default_rng(seed)
    return {
        (t, o): (rng.normal(0, 1, 12), rng.normal(2.0 - 0.3 * (t - introduced[o]), 1, 18))
        for t in range(steps)
        for o in objects
        if introduced[o] <= t
    }


AT_THRESHOLDS = (
    *(f"{m}_{when}" for m in ("recall", "false_alarm") for when in ("frozen", "own")),
    *("f1_frozen", "f1_transferred"),
)
TITLES = {
    "mvtec_14_1": "14-1 with 1 Step",
    "mvtec_10_5": "10-5 with 1 Step",
    "mvtec_3_3x4": "3-3 with 4 Steps",
    "mvtec_10_1x5": "10-1 with 5 Steps",
    "visa_11_1": "11-1 with 1 Step",
    "visa_8_4": "8-4 with 1 Step",
    "visa_8_1x4": "8-1 with 4 Steps",
}
STRATEGY_TITLES = {
    "iuf": "IUF",
    "uniad": "UniAD",
    "ewc": "UniAD + EWC",
    "si": "UniAD + SI",
    "mas": "UniAD + MAS",
    "lvt": "UniAD + LVT",
    "replay": "Replay",
}
