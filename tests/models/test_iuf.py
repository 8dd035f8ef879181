from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iufbench.models.checkpoints import load_public_weights, own_name
from iufbench.models.iuf import IUFNetwork, ObjectClassifier, token_means
from iufbench.models.uniad import UniAD, anomaly_map, reconstruction_loss
from iufbench.support.errors import InputError

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
PARAMETERS = Path(__file__).parent / "data" / "params_reconstruction.json"


def small(size: tuple[int, int] = (7, 7), objects: int = 5, **options) -> IUFNetwork:
    sizes = {
        "hidden": 32,
        "heads": 4,
        "feedforward": 64,
        "classifier_mlp": 48,
        "dropout": 0.0,
        "jitter_scale": 0,
    }
    return IUFNetwork(24, objects, feature_size=size, **{**sizes, **options})


@pytest.mark.parametrize(("name", "size"), [("02_iuf_eval_learned_56", 14), ("02_iuf_train_grads_28", 7)])
def test_forward_equals_the_released_code(arrays, part, name, size):
    d = arrays(name)
    model = small((size, size)).train("train" in name)
    load_public_weights(model, part(d, "w/"))
    twin = small((size, size)).train("train" in name)
    twin.load_state_dict(model.state_dict())
    with torch.no_grad(), token_means(model) as means:
        out = model(d["in/feature_align"], d["in/image"])
    with torch.no_grad():
        _, maps = twin.classifier(d["in/image"], (size, size))
    torch.testing.assert_close(out.class_logits, d["out/class_out"], **CLOSE)
    torch.testing.assert_close(torch.stack(maps), d["mid/outputs_map_pooled"], **CLOSE)
    torch.testing.assert_close(out.reconstruction, d["out/feature_rec"], **CLOSE)
    torch.testing.assert_close(anomaly_map(out, 4 * size)[:, None], d["out/pred"], **CLOSE)
    for i in range(3):
        torch.testing.assert_close(out.decoder_features[i].transpose(1, 2), d[f"out/middle_{i}"], **CLOSE)
    rows = torch.stack([torch.cat(rows) for rows in means.values()])
    torch.testing.assert_close(rows, d["mid/linear2_tokenmean"], **CLOSE)


def test_one_training_step_equals_the_released_code(arrays, part):
    d = arrays("02_iuf_train_grads_28")
    model = small().train()
    load_public_weights(model, part(d, "w/"))
    out = model(d["in/feature_align"], d["in/image"])
    reconstruction, classification = (
        reconstruction_loss(out),
        F.cross_entropy(out.class_logits, d["in/onehot"]),
    )
    torch.testing.assert_close(reconstruction, d["loss/mse"], **CLOSE)
    torch.testing.assert_close(classification, d["loss/ce"], **CLOSE)
    (reconstruction + classification).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    torch.testing.assert_close(norm, d["grad/total_norm_before_clip"], atol=1e-3, rtol=1e-4)
    expected = {own_name(name): grad for name, grad in part(d, "gc/").items()}
    assert expected.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-7, rtol=1e-3, msg=name)
    for name, value in part(d, "after/").items():
        torch.testing.assert_close(model.state_dict()[own_name(name)], value, **CLOSE)


def test_full_size_parameters_are_the_released_ones():
    public = json.loads(PARAMETERS.read_text())
    model = IUFNetwork(272, 12)
    ours = [(name, list(p.shape), p.numel()) for name, p in model.named_parameters()]
    assert ours == [(own_name(name), shape, count) for name, shape, count in public]
    assert sum(count for *_, count in ours) == 9_107_996


def test_each_loss_reaches_its_own_part_and_nothing_else():
    model = small()
    features, image = torch.randn(2, 24, 7, 7), torch.randn(2, 3, 28, 28)
    reconstruction_loss(model(features, image)).backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {n for n, _ in model.named_parameters() if not n.startswith("classifier.")}
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(features, image).class_logits, torch.tensor([0, 3])).backward()
    named = {n for n, p in model.named_parameters() if p.grad is not None}
    assert named == {n for n, _ in model.named_parameters() if n.startswith("classifier.")}


def test_attention_stays_inside_rows_and_ignores_order():
    classifier = ObjectClassifier(3, channels=16, depth=2, mlp=8).eval()
    image = torch.randn(1, 3, 8, 6)
    changed = image.clone()
    changed[0, :, 3, 5] += 1
    with torch.no_grad():
        before, after = (classifier(x, (8, 6))[1][-1] for x in (image, changed))
        shuffled = classifier(image.flip(3), (8, 6))[1][-1]
    rows = (before != after).any(dim=(0, 1, 3))
    assert rows.tolist() == [i == 3 for i in range(8)]
    torch.testing.assert_close(shuffled.flip(3), before, atol=1e-5, rtol=1e-4)


def test_maps_at_sizes_that_do_not_divide():
    classifier = ObjectClassifier(3, channels=16, depth=2, mlp=8).eval()
    logits, maps = classifier(torch.randn(2, 3, 20, 45), (7, 6))
    assert logits.shape == (2, 3)
    assert [m.shape for m in maps] == [(2, 16, 7, 6)] * 2
    assert not any(m.requires_grad for m in maps)


def test_growing_keeps_what_was_learned():
    model = small(objects=2).eval()
    features, image = torch.randn(2, 24, 7, 7), torch.randn(2, 3, 28, 28)
    before = model(features, image)
    model.classifier.grow(4)
    after = model(features, image)
    assert model.classifier.objects == 4
    torch.testing.assert_close(after.class_logits[:, :2], before.class_logits)
    assert torch.equal(after.reconstruction, before.reconstruction)
    model.classifier.grow(4)
    with pytest.raises(ValueError, match="cannot shrink"):
        model.classifier.grow(3)


def test_without_the_classifier_it_is_uniad():
    torch.manual_seed(5)
    network = small(oasa=False).eval()
    uniad = UniAD(24, hidden=32, heads=4, feedforward=64, feature_size=(7, 7)).eval()
    uniad.load_state_dict(network.state_dict())
    features = torch.randn(2, 24, 7, 7)
    out = network(features)
    assert out.class_logits is None
    assert torch.equal(out.reconstruction, uniad(features).reconstruction)


def test_the_guide_matters_and_must_be_there():
    model, features = small().eval(), torch.randn(1, 24, 7, 7)
    a, b = (model(features, torch.full((1, 3, 14, 14), value)).reconstruction for value in (-1.0, 1.0))
    assert not torch.allclose(a, b)
    with pytest.raises(ValueError, match="guide"):
        model(features)


def test_token_means_collects_batches_and_always_lets_go():
    model = small().eval()
    features, image = torch.randn(3, 24, 7, 7), torch.randn(3, 3, 14, 14)
    with token_means(model) as means:
        model(features, image)
        model(features[:1], image[:1])
    assert means.keys() == model.projected_layers().keys()
    assert all([len(r) for r in rows] == [3, 1] and not rows[0].requires_grad for rows in means.values())
    with pytest.raises(RuntimeError, match="stop"), token_means(model) as means:
        raise RuntimeError("stop")
    model(features, image)
    assert all(rows == [] for rows in means.values())


def test_bad_classifier_heads():
    with pytest.raises(InputError, match="classifier heads"):
        small(classifier_heads=5)
