"""anomalib's models as strategies: images and maps are unchanged, state resumes, errors are reported."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from test_memory_banks import maps_of
from tiny import assembled, tiny_run

from iufbench.cards.strategies import load_strategy
from iufbench.support.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")
PADIM = ("anomalib.arguments={backbone: resnet18, layers: [layer1], pre_trained: false, n_features: 6}",)
FLOW = ("anomalib.arguments={backbone: resnet18, pre_trained: false, flow_steps: 1}",)


@pytest.fixture
def anomalib():
    return pytest.importorskip("anomalib", reason="anomalib is not installed (extra iufbench[anomalib])")


def trained(strategy, settings, data, tmp_path, experiences=2):
    _, parts = assembled(strategy, data, tmp_path, settings=settings)
    initial = copy.deepcopy(parts.strategy.model)
    for experience in parts.streams.train[:experiences]:
        parts.strategy.train(experience, eval_streams=[])
    return parts, initial


def normalised(images: torch.Tensor) -> torch.Tensor:
    """ImageNet's mean and standard deviation, expected by all models with an ImageNet backbone."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]


def test_padim_is_anomalibs_own_on_the_images_of_the_last_experience(anomalib, data, tmp_path):
    """A second experience replaces its Gaussians: there is no protection against forgetting."""
    parts, initial = trained("anomalib:Padim", PADIM, data, tmp_path)
    plain = initial["shared"].model
    plain.train()
    plain(normalised(parts.streams.train[1].resident.guide))
    plain.fit()
    plain.eval()
    expected = plain(normalised(parts.streams.test[2].resident.guide)).anomaly_map
    expected = torch.nn.functional.interpolate(expected, size=(224, 224), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps_of(parts, 2), expected, rtol=1e-3, atol=1e-3)
    gaussian = parts.strategy.model["shared"].model.gaussian
    assert parts.strategy.bytes_kept == gaussian.mean.nbytes + gaussian.inv_covariance.nbytes


def test_a_model_with_gradients_learns_in_sequence_and_resumes(anomalib, data, tmp_path):
    parts, initial = trained("anomalib:Fastflow", FLOW, data, tmp_path, experiences=1)
    learner, first = parts.strategy, copy.deepcopy(parts.strategy.state())
    weights = {name: w for name, w in initial.state_dict().items() if "fast_flow" in name}
    assert any(not torch.equal(learner.model.state_dict()[name], w) for name, w in weights.items())
    learner.train(parts.streams.train[1], eval_streams=[])
    maps = maps_of(parts, 0)
    torch.manual_seed(0)
    again = assembled("anomalib:Fastflow", data, tmp_path, settings=FLOW)[1]
    again.strategy.restore(first)
    assert not torch.equal(maps_of(again, 0), maps)
    again.strategy.train(again.streams.train[1], eval_streams=[])
    assert torch.equal(maps_of(again, 0), maps)
    assert [row["images"] for row in learner.training_log] == [12, 6]
    assert all(row["loss"] > 0 for row in learner.training_log)


def test_separate_models_do_not_forget_and_are_restored(anomalib, data, tmp_path):
    parts, _ = trained("anomalib_separate:Padim", PADIM, data, tmp_path, experiences=1)
    before = maps_of(parts, 1)
    parts.strategy.train(parts.streams.train[1], eval_streams=[])
    assert torch.equal(maps_of(parts, 1), before)
    _, again = assembled("anomalib_separate:Padim", data, tmp_path, settings=PADIM)
    again.strategy.restore(parts.strategy.state())
    assert list(again.strategy.model) == ["0", "1", "2"] and torch.equal(maps_of(again, 1), before)


def test_a_joint_run_is_recorded_like_any_other(anomalib, data, tmp_path):
    run = tiny_run("anomalib_joint:Padim", data, tmp_path, PADIM)
    assert run.path.parts[-3] == "anomalib_joint-Padim" and run.complete
    assert run.info["recipe"]["options"]["anomalib"]["model"] == "Padim"


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        ("anomalib:Padin", (), "anomalib has no model 'Padin'; did you mean 'Padim'"),
        (
            "anomalib:Padim",
            ("anomalib.arguments={backbones: resnet18}",),
            "Padim cannot be created.*backbones",
        ),
        ("anomalib:EfficientAd", (), "EfficientAd cannot be trained.*train_batch_size .* should be 1"),
    ],
)
def test_errors_are_named(anomalib, strategy, settings, message, data, tmp_path):
    with pytest.raises(InputError, match=message):
        trained(strategy, settings, data, tmp_path, experiences=1)


def test_without_anomalib_the_extra_is_named(monkeypatch, data, tmp_path):
    monkeypatch.setitem(sys.modules, "anomalib", None)
    with pytest.raises(InputError, match=r"anomalib is not available .*: pip install iufbench\[anomalib\]"):
        assembled("anomalib:Padim", data, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("anomalia:Padim", "unknown strategy 'anomalia:...'; did you mean 'anomalib'"),
        ("anomalib:", "strategy 'anomalib:': '' must consist of letters"),
        ("anomalib:../x", "must consist of letters"),
    ],
)
def test_a_name_that_completes_no_card_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        load_strategy(name)
