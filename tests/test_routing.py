"""Memories selected per image: formulas against brute force, routing recorded and measured."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fake_runs import make_run
from sklearn.metrics import roc_auc_score
from test_memory_banks import PLAIN, maps_of, train

from iufbench.reporting.figures.routing import routing_figure
from iufbench.reporting.groups import group_runs
from iufbench.reporting.routing import confusion, routing
from iufbench.reporting.store import load_run, record_experience, write_record
from iufbench.reporting.tables.routing import oracle_gap, routing_tables
from iufbench.support.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ROUTED = ("gcr", "gcr_score_router", "ucad_cpm", "dinosaur", "patchcore_cl", "padim_per_object")


def tokens(parts, number: int) -> torch.Tensor:
    """float64 [N, P, C]: the test features of an object."""
    features = parts.streams.test[number].resident.features
    return features.double().flatten(2).transpose(1, 2)


def every_distance(x: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """float64 [N, P, K]."""
    return (x[:, :, None] - bank.double()[None, None]).norm(dim=3)


def judged(parts, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch distances [N, P] and the memory [N] that scored each image."""
    learner, data = parts.strategy, parts.streams.test[number].resident
    patches = learner.model(data.features.float())
    vectors = None if data.vectors is None else data.vectors.float()
    keys = learner.route(patches, vectors)
    return learner._judged_by(patches, keys).flatten(1).double(), keys


@pytest.fixture(scope="module")
def gcr(data, tmp_path_factory):
    plain = [s for s in PLAIN if "smoothing" not in s and "neighbourhood" not in s]
    return train("gcr", data, tmp_path_factory.mktemp("gcr"), *plain, "gcr.neighbours=3")[0]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_gcr_routes_by_squared_distances_and_scores_softly(gcr, number):
    x, memory = tokens(gcr, number), gcr.strategy.memory
    near = {key: every_distance(x, parts["bank"]) for key, parts in memory.items()}
    costs = torch.stack([d.min(dim=2).values.square().sum(dim=1) for d in near.values()])
    found, keys = judged(gcr, number)
    assert torch.equal(keys, torch.tensor(list(memory))[costs.argmin(dim=0)])
    for image, key in enumerate(keys.tolist()):
        closest = near[key][image].sort(dim=1).values[:, :3].square()
        expected = -torch.log(torch.exp(-closest / 2).sum(dim=1))
        finite = torch.isfinite(expected)  # exp underflows where no prototype is near
        torch.testing.assert_close(found[image][finite], expected[finite], rtol=1e-4, atol=1e-3)
        shifted = closest.min(dim=1, keepdim=True).values
        stable = shifted[:, 0] / 2 - torch.log(torch.exp(-(closest - shifted) / 2).sum(dim=1))
        torch.testing.assert_close(found[image], stable, rtol=1e-4, atol=1e-3)


def test_gcr_looks_at_the_same_tokens_in_every_batch(data, tmp_path):
    parts, _ = train("gcr", data, tmp_path, "gcr.tokens=5")
    patches = torch.randn(3, 192, 4, 4)
    looked = parts.strategy._looked_at(patches)
    assert looked.shape == (3, 5, 192) and torch.equal(looked[1:], parts.strategy._looked_at(patches[1:]))


def test_the_score_router_takes_the_head_with_the_lowest_score(data, tmp_path):
    parts, _ = train("gcr_score_router", data, tmp_path)
    learner = parts.strategy
    patches = learner.model(parts.streams.test[1].resident.features.float())
    scores = []
    for key in learner.memory:
        maps = learner.to_maps(learner.distances(key, patches)).double().flatten(1)
        scores.append(maps.sort(dim=1).values[:, -(224 * 224 // 100) :].mean(dim=1))
    assert torch.equal(
        learner.route(patches, None), torch.tensor(list(learner.memory))[torch.stack(scores).argmin(0)]
    )


def test_ucad_keeps_its_key_inside_its_knowledge(data, tmp_path):
    parts, kept = train("ucad_cpm", data, tmp_path, *PLAIN)
    x, memory = tokens(parts, 1), parts.strategy.memory
    assert kept[-1] == 3 * 12 * 192 * 4
    costs = [every_distance(x, m["bank"][:8]).min(dim=2).values.sum(dim=1) for m in memory.values()]
    found, keys = judged(parts, 1)
    assert torch.equal(keys, torch.tensor(list(memory))[torch.stack(costs).argmin(dim=0)])
    expected = [
        every_distance(x[i : i + 1], memory[k]["bank"]).min(dim=2).values[0]
        for i, k in enumerate(keys.tolist())
    ]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reach", [0, 1, "null"])
def test_dinosaur_compares_within_its_window(reach, data, tmp_path):
    parts, _ = train("dinosaur", data, tmp_path, *PLAIN, f"positions.reach={reach}", "positions.share=1")
    learner, far = parts.strategy, 4 if reach == "null" else reach
    found, keys = judged(parts, 0)
    x = tokens(parts, 0)
    for image in range(3):
        bank = learner.memory[int(keys[image])]["bank"].double().view(4, 4, -1, 192)
        for i, j in itertools.product(range(4), range(4)):
            around = bank[max(0, i - far) : i + far + 1, max(0, j - far) : j + far + 1].reshape(-1, 192)
            expected = (x[image, 4 * i + j] - around).norm(dim=1).min()
            torch.testing.assert_close(found[image, 4 * i + j], expected, rtol=1e-4, atol=1e-4)


def test_dinosaur_routes_by_the_nearest_mean_vector(data, tmp_path):
    parts, _ = train("dinosaur", data, tmp_path)
    learner = parts.strategy
    means = [
        e.resident.vectors[e.resident.objects == o].double().mean(dim=0)
        for e in parts.streams.train
        for o in e.resident.objects.unique()
    ]
    vectors = parts.streams.test[2].resident.vectors
    expected = torch.cdist(vectors.double(), torch.stack(means)).argmin(dim=1)
    assert torch.equal(learner.route(torch.zeros(0), vectors.float()), expected)


def test_a_shifted_image_is_anomalous_to_positions_and_not_to_one_bank(data, tmp_path):
    """Every patch was seen elsewhere: anomalous beyond the reach of a positional memory, not to PatchCore."""
    plain = [*PLAIN, "positions.share=1", "positions.reach=1"]
    positions, _ = train("dinosaur", data, tmp_path, *plain, experiences=1)
    bank, _ = train("patchcore", data, tmp_path, *PLAIN, "coreset.ratio=1", experiences=1)
    seen = positions.streams.train[0].resident.features[:6]
    levels = {}
    for shift in (0, 1, 2):
        for parts in (positions, bank):
            parts.streams.test[0].resident.features[:6] = seen.roll(shift, dims=3)
        moved = seen.roll(shift, dims=3).float()
        levels[shift] = [
            float(parts.strategy.distances(key, moved)[..., shift:].mean())
            for parts, key in ((positions, 0), (bank, -1))
        ]
    assert levels[0][0] < 1e-3 and levels[1][0] < 1e-3 and levels[2][0] > 0.1
    assert all(of_bank < 1e-3 for _, of_bank in levels.values())


@pytest.mark.parametrize("patches", [1, 3, 100])
def test_positions_stay_within_their_budget(patches, data, tmp_path):
    budget = 3 * 4 * (patches * 16 * 192 + 192) + 5
    _, kept = train("dinosaur", data, tmp_path, f"positions.budget_bytes={budget}", "positions.share=1")
    assert all(0 < bytes_kept <= budget for bytes_kept in kept)
    if patches <= 6:
        assert kept[-1] == budget - 5


@pytest.mark.parametrize(
    ("strategy", "setting", "message"),
    [
        ("dinosaur", "positions.budget_bytes=30000", "give at least 39168"),
        ("dinosaur", "backbone.vector=none", "set backbone.vector"),
        ("dinosaur", "backbone.vector=class_token", "no class token"),
        ("dinosaur", "image_size=72", "multiples of 16"),
        ("contcore", "coreset.budget_bytes=500", "give at least 768"),
    ],
)
def test_what_cannot_be_remembered_is_reported(strategy, setting, message, data, tmp_path):
    with pytest.raises(InputError, match=message):
        train(strategy, data, tmp_path, setting)


def test_contcore_is_patchcore_where_settings_agree(data, tmp_path):
    budget = "coreset.budget_bytes=20000"
    ours, _ = train("contcore", data, tmp_path, budget)
    same, _ = train("patchcore", data, tmp_path, budget, "coreset.ratio=1")
    assert torch.equal(maps_of(ours, 1), maps_of(same, 1))


# What a run says of it --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ROUTED)
def test_a_run_records_the_memory_of_every_image(strategy, three_objects):
    run = three_objects(strategy)
    scores = run.scores()
    names = {"candle", "capsules", "cashew"}
    first, last_ = (set(scores.loc[scores["experience"] == t, "routed"]) for t in (0, 1))
    assert first <= {"candle", "capsules"} and last_ <= names
    table = routing(run)
    now = scores[scores["experience"] == 1]
    expected = (now["routed"] == now["object"]).groupby(now["object"]).mean().mean()
    assert table["routing_acc"].iloc[-1] == pytest.approx(expected)
    objects, shares = confusion(run)
    assert objects == ("candle", "capsules", "cashew")
    assert np.diag(shares).mean() == pytest.approx(expected) and shares.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("strategy", ["gcr_oracle", "patchcore"])
def test_a_strategy_that_does_not_route_reports_nothing(strategy, three_objects):
    assert "routed" not in three_objects(strategy).scores()


def routed_run(results, strategy: str, wrong: int, uses: bool = True):
    """A fake run of two objects whose first ``wrong`` images of each went to the other's memory."""
    path = make_run(results, "visa_1_1", strategy)
    run = load_run(path)
    (path / "scores.csv.gz").unlink()
    run.record.strategy.uses = {"routing": uses}
    rng = np.random.default_rng(0)
    rows, names = [], run.objects
    for t in range(len(run.experiences)):
        rows = []
        for k, name in enumerate(names):
            for n in range(10):
                other = names[(k + 1) % len(names)]
                score = float(rng.normal(n % 2, 1)) if n >= wrong else float(rng.normal(0, 1))
                rows.append((name, f"{name}/{n}.png", n % 2, score, other if n < wrong else name))
        keep = run.metrics[run.metrics["experience"] == t]
        metrics = [tuple(r)[1:] for r in keep.itertuples(index=False)]
        record_experience(path, t, metrics, rows)
    write_record(path, run.record)
    return load_run(path)


def test_right_and_wrong_routing_are_distinguished(tmp_path):
    run = routed_run(tmp_path, "gcr", wrong=4)
    row = routing(run).iloc[-1]
    scores = run.scores()
    scores = scores[scores["experience"] == len(run.experiences) - 1]
    for column, part in (
        ("auroc_right", scores[scores["routed"] == scores["object"]]),
        ("auroc_wrong", scores[scores["routed"] != scores["object"]]),
    ):
        expected = np.mean([roc_auc_score(p["label"], p["score"]) for _, p in part.groupby("object")])
        assert row[column] == pytest.approx(expected)
    assert row["routing_acc"] == pytest.approx(0.6)
    figure = routing_figure(run)
    assert {t.get_text() for t in figure.axes[0].texts} == {"60", "40"}


@pytest.mark.parametrize(
    ("stream", "experiences", "routed", "expected"),
    [
        ({"kind": "recurring"}, [["a"], ["b"], ["a"]], {"a": "a", "b": "a"}, [1.0, 0.5, 0.5]),
        ({"kind": "drift"}, [["a@0"], ["a@1"]], {"a@0": "a@0", "a@1": "a@0"}, [1.0, 1.0]),
    ],
)
def test_routing_in_streams_whose_objects_come_back_or_change(stream, experiences, routed, expected):
    """An object that recurs has been seen since its first visit; levels of a drift share one memory."""
    rows = [
        (t, o, k, 0.5 * k, to) for t in range(len(experiences)) for o, to in routed.items() for k in (0, 1)
    ]
    scores = pd.DataFrame(rows, columns=["experience", "object", "label", "score", "routed"])
    record = SimpleNamespace(protocol=SimpleNamespace(stream=stream))
    run = SimpleNamespace(
        experiences=experiences, objects=tuple(routed), record=record, scores=lambda: scores
    )
    assert routing(run)["routing_acc"].tolist() == expected
    names, shares = confusion(run)
    assert names == tuple(dict.fromkeys(name[0] for name in routed))
    assert shares[:, 0].tolist() == [1.0] * len(names)


def test_the_routing_table_has_the_gap_to_the_oracle(tmp_path):
    routed_run(tmp_path, "gcr", wrong=4)
    routed_run(tmp_path, "gcr_oracle", wrong=0, uses=False)
    runs = [load_run(p.parent) for p in sorted(tmp_path.rglob("run.json"))]
    groups = group_runs(runs)
    mine = next(g for g in groups if g.strategy == "gcr")
    (table,) = routing_tables(groups, {})
    finals = {g.strategy: g.values("image", "auroc", "acc_final") for g in groups}
    assert oracle_gap(mine, groups) == pytest.approx(finals["gcr_oracle"] - finals["gcr"])
    (row,) = table.rows
    assert row.cells[0].value == pytest.approx(60) and row.cells[3].value is not None
