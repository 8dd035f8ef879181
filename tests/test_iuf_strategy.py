"""IUF's three components: each has its effect when enabled, and none when disabled."""

from __future__ import annotations

import pytest
import torch
from tiny import assembled

from iufbench.models.compression import RecentRows, StaticRows, tail_by_products, tail_singular_values

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def trained(data, tmp_path, settings=(), strategy="iuf", experiences=2):
    _, parts = assembled(strategy, data, tmp_path, settings=tuple(settings))
    for experience in parts.streams.train[:experiences]:
        parts.strategy.train(experience, eval_streams=[])
    return parts


def test_compression_reaches_the_weights_that_it_is_about(data, tmp_path):
    """The released code computes this loss on detached tensors; here it must have a gradient."""
    _, parts = assembled("iuf", data, tmp_path, settings=("scl.first=2",))
    learner = parts.strategy
    terms = {}

    class Watch:
        def before_backward(self, strategy, **kwargs):
            if terms:
                return
            loss = strategy.losses_apart(strategy.apart())["compression"]
            named = [(n, p) for n, p in strategy.model.named_parameters() if p.requires_grad]
            grads = torch.autograd.grad(loss, [p for _, p in named], retain_graph=True, allow_unused=True)
            terms.update({n: g for (n, _), g in zip(named, grads)})

    learner.plugins.insert(0, Watch())
    learner.train(parts.streams.train[0], eval_streams=[])
    reached = {n for n, g in terms.items() if g is not None and g.abs().sum() > 0}
    assert any(n.startswith("transformer.encoder") for n in reached)
    assert any(n.startswith("transformer.decoder.layers.0") for n in reached)
    assert not any(n.startswith("output_proj") for n in reached)


def test_the_released_card_gives_compression_no_gradient(data, tmp_path):
    _, parts = assembled("iuf_release", data, tmp_path)
    flags = []

    class Watch:
        def before_backward(self, strategy, **kwargs):
            flags.append(strategy.losses_apart(strategy.apart())["compression"].requires_grad)

    parts.strategy.plugins.insert(0, Watch())
    parts.strategy.train(parts.streams.train[0], eval_streams=[])
    assert flags and not any(flags)


def test_feature_matrices_grow_with_every_experience_even_with_few_images(data, tmp_path):
    _, parts = assembled("iuf", data, tmp_path)
    rows = []
    for experience in parts.streams.train:
        parts.strategy.train(experience, eval_streams=[])
        rows.append({n: m.rows for n, m in parts.strategy.feature_matrices.items()})
    assert len(rows[0]) == 4  # two encoder and two decoder layers
    assert set(rows[0].values()) == {12} and set(rows[1].values()) == {18}  # 12 < 16 channels
    assert parts.strategy.bytes_kept > 0


def test_projection_holds_the_old_main_direction(data, tmp_path):
    """Along the strongest direction of the old features the projected layers do not change at all.

    With plain SGD: AdamW divides gradients elementwise after the projection.
    """
    settings = ("update.pull=0", "scl.enabled=false")
    _, parts = assembled("iuf_released_update", data, tmp_path, settings=settings)
    learner = parts.strategy
    learner.train(parts.streams.train[0], eval_streams=[])
    names = list(learner.feature_matrices)
    before = {n: learner.model.get_submodule(n).weight.detach().clone() for n in names}
    vectors = {n: torch.linalg.svd(learner.feature_matrices[n].factor, full_matrices=False).Vh for n in names}
    learner.train(parts.streams.train[1], eval_streams=[])
    for n in names:
        change = vectors[n] @ (learner.model.get_submodule(n).weight.detach() - before[n])
        size = change.norm(dim=1)
        assert size[0] < 1e-3 * size.max()


def test_a_full_pull_keeps_the_old_weights(data, tmp_path):
    _, parts = assembled("iuf", data, tmp_path, settings=("update.pull=1", "increment.lr=1e-12"))
    learner = parts.strategy
    learner.train(parts.streams.train[0], eval_streams=[])
    before = {
        n: p.detach().clone() for n, p in learner.model.named_parameters() if "classifier.fc.2" not in n
    }
    learner.train(parts.streams.train[1], eval_streams=[])
    now = dict(learner.model.named_parameters())
    assert all(torch.allclose(before[n], now[n], atol=1e-6) for n in before)


def test_all_parts_off_is_finetune(data, tmp_path):
    off = (
        "scl.enabled=false",
        "update.enabled=false",
        "increment.optimizer=adamw",
        "increment.lr=1e-3",
        "increment.weight_decay=1e-4",
        "increment.clip_norm=1.0",
        "increment.schedule=cosine",
        "increment.warmup_iterations=10",
    )
    one = trained(data, tmp_path, off).strategy.model.state_dict()
    other = trained(data, tmp_path, strategy="finetune").strategy.model.state_dict()
    assert all(torch.equal(one[k], other[k]) for k in other)


def test_without_object_aware_attention_there_is_no_classifier(data, tmp_path):
    parts = trained(data, tmp_path, ("oasa.enabled=false",))
    assert parts.strategy.model.classifier is None
    assert parts.streams.train[0].resident.guide is None
    assert "classification" not in parts.strategy.training_log[0]


def test_the_classifier_knows_only_objects_that_have_arrived(data, tmp_path):
    assert trained(data, tmp_path, experiences=1).strategy.model.classifier.objects == 2
    assert trained(data, tmp_path, experiences=2).strategy.model.classifier.objects == 3


@pytest.mark.parametrize(("every", "matrices"), [(3, 4), (100, 0)])
def test_rare_collection_as_in_the_released_code(data, tmp_path, every, matrices):
    """Two epochs per experience: a multiple of 3 is in the second, a multiple of 100 never."""
    parts = trained(data, tmp_path, (f"update.collect_every_epochs={every}",))
    assert len(parts.strategy.feature_matrices) == matrices


def classifier_and_rest(parts):
    named = {n: p.detach().clone() for n, p in parts.strategy.model.named_parameters() if p.requires_grad}
    classifier = {n: p for n, p in named.items() if n.startswith("classifier.")}
    return classifier, {n: p for n, p in named.items() if n not in classifier}


@pytest.mark.parametrize("pulled", [True, False])
def test_the_classifier_is_pulled_only_if_the_card_says_so(data, tmp_path, pulled):
    """A full pull keeps weights within one step of their old values."""
    adamw = ["increment.optimizer=adamw", "increment.lr=1e-3", "increment.schedule=constant"]
    settings = [
        *adamw,
        "increment.warmup_iterations=0",
        "update.pull=1",
        f"update.pull_classifier={str(pulled).lower()}",
    ]
    parts = trained(data, tmp_path, settings, experiences=1)
    before = classifier_and_rest(parts)
    parts.strategy.train(parts.streams.train[1], eval_streams=[])
    after = classifier_and_rest(parts)
    iterations = parts.strategy.clock.train_iterations

    def moved(part):
        return max(float((after[part][n][: len(p)] - p).abs().max()) for n, p in before[part].items())

    assert iterations > 8
    single = 1.5e-3  # what one step of AdamW can move a weight by
    assert moved(1) < single
    assert (moved(0) < single) == pulled


def test_the_classifier_can_have_a_clip_budget_of_its_own(data, tmp_path):
    norms = {}
    for shared in ("true", "false"):
        settings = [f"update.clip_classifier={shared}", "increment.clip_norm=0.01", "update.projection=false"]
        parts = trained(data, tmp_path, settings, experiences=1)
        seen = []

        class Watch:
            def __init__(self, seen):
                self.seen = seen

            def before_update(self, strategy, **kwargs):
                named = [(n, p.grad) for n, p in strategy.model.named_parameters() if p.grad is not None]
                for own in (True, False):
                    grads = [g for n, g in named if n.startswith("classifier.") == own]
                    self.seen.append(float(torch.cat([g.flatten() for g in grads]).norm()))

        parts.strategy.plugins.append(Watch(seen))
        parts.strategy.train(parts.streams.train[1], eval_streams=[])
        norms[shared] = torch.tensor(seen).view(-1, 2)
    # Together at most the budget; apart, each has all of it (gradients are larger than 0.01 here).
    torch.testing.assert_close(norms["true"].norm(dim=1), torch.full((len(norms["true"]),), 0.01))
    torch.testing.assert_close(norms["false"], torch.full_like(norms["false"], 0.01))


def test_the_compression_gradient_of_a_real_run_is_that_of_svdvals(data, tmp_path):
    """The windows that trainings meet, with their actual spread of singular values, in float64."""
    _, parts = assembled("iuf", data, tmp_path, settings=("base.epochs=6", "scl.first=3"))
    learner, seen = parts.strategy, []
    original = learner.losses_apart

    def recorded(tensors):
        seen.append([rows.detach().double() for rows in tensors])
        return original(tensors)

    learner.losses_apart = recorded
    for experience in parts.streams.train:
        learner.train(experience, eval_streams=[])
    assert len(seen) >= 20
    checked = 0
    for number in range(1, len(seen), 4):
        recent, before = RecentRows(10_000), seen[:number]
        for rows in before:
            recent.with_new(rows)
        new = [rows.clone().requires_grad_() for rows in seen[number]]
        by_products = tail_by_products(StaticRows(10_000, recent.batches).joined(new), 3)
        loss = tail_singular_values(recent.with_new(new), 3)
        whole = [torch.cat([*(rows[k] for rows in before), new[k]]) for k in range(len(new))]
        values = [torch.linalg.svdvals(rows) for rows in whole]
        expected = torch.stack([(v / v.sum())[3:].sum() for v in values]).mean()
        gradients = torch.autograd.grad(expected, new)
        for found in (loss, by_products):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
            for ours, theirs in zip(torch.autograd.grad(found, new), gradients):
                assert float((ours - theirs).norm() / theirs.norm()) < 1e-6
                checked += 1
    assert checked >= 10
