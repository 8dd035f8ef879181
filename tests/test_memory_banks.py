"""Memory banks against brute force: coresets, neighbours, Gaussians, and byte budgets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tiny import assembled

from iufbench.cards.registry import card_paths
from iufbench.cards.strategies import load_strategy
from iufbench.data.resident import UNKNOWN_OBJECT, Batch, Batches
from iufbench.learning import memory_bank
from iufbench.models.neighbours import greedy_coreset, nearest
from iufbench.support.errors import InputError, RunError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def points(n: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed))


def farthest_points(x: np.ndarray, count: int, chosen: list[int], centres: np.ndarray) -> list[int]:
    """k-centre greedy, point by point, with every distance computed by subtraction."""
    x, start = x.astype(np.float64), len(chosen)
    distance = np.full(len(x), np.inf)
    for centre in [*x[chosen], *centres.astype(np.float64)]:
        distance = np.minimum(distance, np.linalg.norm(x - centre, axis=1))
    while len(chosen) < start + count:
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(x - x[chosen[-1]], axis=1))
    return chosen[start:]


# Neighbours and coresets ---------------------------------------------------------------------------


@pytest.mark.parametrize("matrix_bytes", [1, 4 * 7, 4 * 50, 2**20])
def test_nearest_in_chunks_is_nearest_by_brute_force(matrix_bytes):
    queries, bank = points(23, 5), points(31, 5, seed=1) + 10
    every = (queries.double()[:, None] - bank.double()[None]).norm(dim=2)
    distance, index = nearest(queries, bank, matrix_bytes)
    assert torch.equal(index, every.argmin(dim=1))
    torch.testing.assert_close(distance.double(), every.min(dim=1).values, rtol=1e-6, atol=0)


def test_a_point_of_the_bank_is_at_distance_zero_from_it():
    bank = points(200, 64) + 100  # where |a|^2 + |b|^2 - 2ab would leave a rest
    distance, index = nearest(bank, bank)
    assert distance.count_nonzero() == 0 and index.tolist() == list(range(200))


def test_no_distance_matrix_is_larger_than_stated(monkeypatch):
    sizes = []
    product, cdist = torch.addmm, torch.cdist

    def watched(function):
        def call(*arguments, **options):
            result = function(*arguments, **options)
            sizes.append(result.nbytes)
            return result

        return call

    monkeypatch.setattr(torch, "addmm", watched(product))
    monkeypatch.setattr(torch, "cdist", watched(cdist))
    budget = 4 * 256 * 256  # also what a group of candidates is compared in
    nearest(points(1000, 3), points(900, 3, seed=1), budget)
    greedy_coreset(points(1500, 3), 300, matrix_bytes=budget)
    assert len(sizes) > 20 and max(sizes) <= budget


@pytest.mark.parametrize(("n", "channels", "count"), [(1, 2, 1), (40, 3, 40), (700, 2, 350), (900, 16, 120)])
def test_the_coreset_is_the_naive_one(n, channels, count):
    x = points(n, channels)
    expected = [n // 2, *farthest_points(x.numpy(), count - 1, [n // 2], np.zeros((0, channels)))]
    assert greedy_coreset(x, count, first=n // 2).tolist() == expected


def test_centres_count_as_chosen():
    x, centres = points(300, 4), points(50, 4, seed=1)
    expected = farthest_points(x.numpy(), 40, [], centres.numpy())
    assert greedy_coreset(x, 40, centres=centres).tolist() == expected


def test_a_smaller_coreset_is_the_beginning_of_a_larger_one():
    x = points(600, 8)
    assert greedy_coreset(x, 30).tolist() == greedy_coreset(x, 400)[:30].tolist()


def test_equal_points_are_still_chosen_once_each():
    x = torch.ones(600, 3)
    assert sorted(greedy_coreset(x, 600).tolist()) == list(range(600))
    assert len(greedy_coreset(x, 1000)) == 600


# PatchCore -----------------------------------------------------------------------------------------


def train(strategy, data, tmp_path, *settings, experiences=2, **request):
    """The assembled parts after some experiences, and bytes_kept after each."""
    _, parts = assembled(strategy, data, tmp_path, settings=settings, **request)
    kept = []
    for experience in parts.streams.train[:experiences]:
        parts.strategy.train(experience, eval_streams=[])
        kept.append(parts.strategy.bytes_kept)
    return parts, kept


def maps_of(parts, number: int) -> torch.Tensor:
    """All anomaly maps of a test experience, as in the evaluation."""
    found = []

    class Watch:
        def after_eval_iteration(self, strategy, **kwargs):
            found.append(strategy.anomaly_maps())

    parts.strategy.plugins.insert(0, Watch())
    parts.evaluation.start(0, 3)
    parts.strategy.eval([parts.streams.test[number]])
    parts.strategy.plugins.pop(0)
    return torch.cat(found)


PLAIN = ("patches.neighbourhood=1", "patches.smoothing=0", "network.standardise=false")


def test_everything_kept_is_brute_force_nearest_neighbour(data, tmp_path):
    parts, _ = train(
        "patchcore", data, tmp_path, "coreset.ratio=1", *PLAIN, experiences=1, protocol="visa_1_1"
    )
    bank = parts.streams.train[0].resident.features.permute(0, 2, 3, 1).flatten(0, 2).double()
    test = parts.streams.test[0].resident.features.double()
    queries = test.permute(0, 2, 3, 1).flatten(0, 2)
    every = (queries[:, None] - bank[None]).norm(dim=2).min(dim=1).values
    expected = torch.nn.functional.interpolate(
        every.view(len(test), 1, 4, 4), size=(224, 224), mode="bilinear", align_corners=True
    )[:, 0]
    torch.testing.assert_close(maps_of(parts, 0).double(), expected, rtol=1e-5, atol=1e-5)


def test_images_that_were_learnt_are_not_anomalous_when_everything_is_kept(data, tmp_path):
    parts, _ = train("patchcore", data, tmp_path, "coreset.ratio=1")
    parts.streams.test[0].resident.features[:6] = parts.streams.train[0].resident.features[:6]
    assert maps_of(parts, 0)[:6].max() < 1e-4


@pytest.mark.parametrize("strategy", ["patchcore", "patchcore_per_object", "patchcore_oracle"])
@pytest.mark.parametrize("patches", [3, 20, 10**6])
def test_the_bank_stays_within_its_budget(strategy, patches, data, tmp_path):
    size = 4 * 192
    budget = patches * size + size - 1
    parts, kept = train(strategy, data, tmp_path, f"coreset.budget_bytes={budget}", "coreset.ratio=0.5")
    assert all(0 < bytes_kept <= budget for bytes_kept in kept)
    banks = parts.strategy.memory
    assert sum(len(b["bank"]) for b in banks.values()) == kept[-1] // size
    if patches < 10**6:  # 18 images x 16 patches, half of them wanted
        assert kept[-1] // size == (patches // len(banks)) * len(banks)
    else:  # a budget larger than the data is not filled
        assert kept == [96 * size, 144 * size]


# The smallest budget of every memory that holds three objects of the tiny run: 16 positions, 192 channels.
SMALLEST = {
    "coreset.budget_bytes": 3 * 768,
    "gcr.budget_bytes": 3 * 768,
    "task.budget_bytes": 3 * 768,
    "positions.budget_bytes": 3 * (16 + 1) * 768,
    "gaussian.budget_bytes": 3 * (16 * 4 * 5 * 4 + 4),
}


def memories() -> dict[str, str]:
    """Every strategy that stores features -> the card key of its budget."""
    found = {}
    for name in card_paths("strategy"):
        content = load_strategy(name).content
        if content["family"] == "memories":
            blocks = [
                b for b, value in content.items() if isinstance(value, dict) and "budget_bytes" in value
            ]
            (found[name],) = [f"{block}.budget_bytes" for block in blocks]
    return found


@pytest.mark.parametrize(("strategy", "setting"), memories().items())
def test_every_memory_honours_its_budget(strategy, setting, data, tmp_path):
    least, settings = SMALLEST[setting], ("gaussian.channels=4",) if "gaussian" in setting else ()
    _, kept = train(strategy, data, tmp_path, f"{setting}={least}", *settings)
    shared = load_strategy(strategy).content["learner"].split(":")[1] in ("PatchCore", "PaDiM")
    banks = 1 if shared else 3
    assert all(0 < bytes_kept <= least for bytes_kept in kept)
    if banks == 3 or "gaussian" not in setting:  # one Gaussian for all objects does not grow
        assert kept[-1] == least
    too_little = least * banks // 3 - 1
    message = f"{setting}: {too_little} bytes hold no .* give at least {too_little + 1}$"
    with pytest.raises(InputError, match=message):
        train(strategy, data, tmp_path, f"{setting}={too_little}", *settings)


def test_truncated_prototypes_are_the_coreset_of_that_size(data, tmp_path):
    """With a budget for 5 of 8 prototypes per object, the first 5 in farthest-first order remain."""
    whole, _ = train("gcr", data, tmp_path)
    cut, _ = train("gcr", data, tmp_path, f"gcr.budget_bytes={3 * 5 * 768}")
    for key, parts in whole.strategy.memory.items():
        assert len(parts["bank"]) == 8
        assert torch.equal(cut.strategy.memory[key]["bank"], parts["bank"][:5])


def test_a_shared_bank_keeps_what_it_has_until_the_budget_is_full(data, tmp_path):
    _, parts = assembled("patchcore", data, tmp_path)
    parts.strategy.train(parts.streams.train[0], eval_streams=[])
    first = parts.strategy.memory[memory_bank.SHARED]["bank"].clone()
    parts.strategy.train(parts.streams.train[1], eval_streams=[])
    second = parts.strategy.memory[memory_bank.SHARED]["bank"]
    assert torch.equal(second[: len(first)], first) and len(second) == len(first) + 10


def test_banks_of_known_objects_judge_by_themselves_alone(data, tmp_path):
    """The oracle's map of an object does not depend on other learnt objects."""
    alone, _ = train("patchcore_oracle", data, tmp_path, experiences=1)
    both, _ = train("patchcore_oracle", data, tmp_path, experiences=2)
    assert torch.equal(maps_of(alone, 0), maps_of(both, 0))


def test_the_nearest_bank_is_that_of_the_object(data, tmp_path):
    """Objects differ so much that banks without object ids select the right one."""
    nearest_bank, _ = train("patchcore_per_object", data, tmp_path)
    oracle, _ = train("patchcore_oracle", data, tmp_path)
    for number in range(3):
        torch.testing.assert_close(maps_of(nearest_bank, number), maps_of(oracle, number))


def test_the_oracle_judges_an_object_it_does_not_know_by_the_nearest(data, tmp_path):
    oracle, _ = train("patchcore_oracle", data, tmp_path, experiences=1)
    blind, _ = train("patchcore_per_object", data, tmp_path, experiences=1)
    assert torch.equal(maps_of(oracle, 2), maps_of(blind, 2))


def test_only_an_oracle_is_given_object_ids(data, tmp_path):
    for strategy, shown in (("patchcore_per_object", {UNKNOWN_OBJECT}), ("patchcore_oracle", {1})):
        _, parts = assembled(strategy, data, tmp_path)
        assert {y for b in Batches(parts.streams.test[1].resident, 4) for y in b.y.tolist()} == shown
    hidden = Batch(torch.zeros(1, 1, 1, 1), torch.tensor([UNKNOWN_OBJECT]), torch.zeros(1))
    with pytest.raises(RunError, match=r"uses\.object_id_at_test"):
        hidden.objects  # noqa: B018


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("coreset.budget_bytes=0", "coreset.budget_bytes must be >= 1"),
        ("coreset.ratio=0", "coreset.ratio must be > 0"),
        ("coreset.ratio=1.5", "coreset.ratio must be <= 1"),
        ("patches.neighbourhood=2", "patches.neighbourhood must be one of 1, 3, 5, 7"),
        ("patches.smoothing=-1", "patches.smoothing must be >= 0"),
    ],
)
def test_bad_memory_settings_are_named(setting, message, data, tmp_path):
    with pytest.raises(InputError, match=message):
        assembled("patchcore", data, tmp_path, settings=(setting,))


def test_a_budget_that_holds_no_patch_says_what_would(data, tmp_path):
    with pytest.raises(InputError, match="768 bytes, so give at least 1536"):
        train("patchcore_per_object", data, tmp_path, "coreset.budget_bytes=1000")


# PaDiM -----------------------------------------------------------------------------------------------


def test_distances_are_mahalanobis_distances(data, tmp_path):
    settings = ("gaussian.channels=7", "gaussian.regularisation=0.5", *PLAIN)
    parts, _ = train("padim", data, tmp_path, *settings, experiences=1)
    learner = parts.strategy
    seen = parts.streams.train[0].resident.features[:, learner.channels].double().numpy()
    test = parts.streams.test[0].resident.features[:, learner.channels].double().numpy()
    expected = np.empty((len(test), 4, 4))
    for row in range(4):
        for column in range(4):
            x = seen[:, :, row, column]
            inverse = np.linalg.inv(np.cov(x, rowvar=False) + 0.5 * np.eye(7))
            d = test[:, :, row, column] - x.mean(axis=0)
            expected[:, row, column] = np.sqrt(np.einsum("nc,cd,nd->n", d, inverse, d))
    found = learner.distances(memory_bank.SHARED, parts.streams.test[0].resident.features)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


def test_merged_moments_are_those_of_all_images(data, tmp_path):
    settings = ("gaussian.channels=9", *PLAIN)
    parts, kept = train("padim", data, tmp_path, *settings)
    learner = parts.strategy
    x = torch.cat([e.resident.features for e in parts.streams.train])[:, learner.channels].double()
    tokens = x.flatten(2).permute(2, 0, 1)  # positions, images, channels
    memory = learner.memory[memory_bank.SHARED]
    assert float(memory["count"]) == 18 and kept[0] == kept[1]
    torch.testing.assert_close(memory["mean"].double(), tokens.mean(dim=1), rtol=1e-5, atol=1e-5)
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    expected = centred.transpose(1, 2) @ centred
    torch.testing.assert_close(memory["scatter"].double(), expected, rtol=1e-5, atol=1e-4)


def test_more_channels_than_there_are_means_all(data, tmp_path):
    parts, _ = train("padim", data, tmp_path, "gaussian.channels=5000", experiences=1)
    assert parts.strategy.channels.tolist() == list(range(192))


def test_gaussians_of_known_objects_do_not_change_with_new_ones(data, tmp_path):
    parts, kept = train("padim_per_object", data, tmp_path, experiences=1)
    before = {k: v.clone() for k, v in parts.strategy.memory[0].items()}
    parts.strategy.train(parts.streams.train[1], eval_streams=[])
    assert all(torch.equal(before[k], parts.strategy.memory[0][k]) for k in before)
    assert parts.strategy.bytes_kept == kept[0] * 3 // 2


# What all of them share --------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.8, 4.0])
def test_blur_is_scipys(sigma):
    maps = torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(0))
    expected = np.stack([gaussian_filter(m, sigma, mode="mirror", truncate=4) for m in maps.double().numpy()])
    np.testing.assert_allclose(memory_bank.blur(maps, sigma).numpy(), expected, atol=1e-6)
    assert memory_bank.blur(maps, 0) is maps


def test_patches_average_over_the_tokens_that_exist():
    embedding = memory_bank.PatchEmbedding(2, 3)
    features = torch.rand(1, 2, 4, 4)
    out = embedding(features)
    torch.testing.assert_close(out[0, :, 0, 0], features[0, :, :2, :2].mean(dim=(1, 2)))
    torch.testing.assert_close(out[0, :, 1, 2], features[0, :, :3, 1:4].mean(dim=(1, 2)))
    embedding.fit_standardisation(features)
    standardised = (features - features.mean((0, 2, 3), keepdim=True)) / features.std(
        (0, 2, 3), keepdim=True, correction=0
    )
    torch.testing.assert_close(embedding(features)[0, :, 1, 1], standardised[0, :, :3, :3].mean(dim=(1, 2)))


@pytest.mark.parametrize("strategy", ["patchcore", "patchcore_per_object", "padim", "padim_per_object"])
def test_a_memory_goes_through_a_checkpoint(strategy, data, tmp_path):
    parts, _ = train(strategy, data, tmp_path, experiences=1)
    torch.save(parts.strategy.state(), tmp_path / "state.pt")
    _, other = assembled(strategy, data, tmp_path)
    other.strategy.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(maps_of(parts, 1), maps_of(other, 1))
    for each in (parts, other):
        each.strategy.train(each.streams.train[1], eval_streams=[])
    assert torch.equal(maps_of(parts, 2), maps_of(other, 2))
