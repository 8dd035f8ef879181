"""EWC, SI, MAS, LwF and LVT protect what they should; importances equal an independent computation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny import assembled, tiny_plan
from torch import nn

from iufbench.data.resident import ResidentData
from iufbench.engine.assembly import assemble
from iufbench.learning import inter_task, quadratic
from iufbench.models.uniad import Reconstruction, reconstruction_loss
from iufbench.strategies import mas, si
from iufbench.support.errors import InputError
from iufbench.support.progress import Progress

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
STRENGTHS = {
    "ewc": "ewc.strength",
    "ewc_online": "ewc.strength",
    "si": "si.strength",
    "mas": "mas.strength",
    "lwf": "lwf.strength",
}
HOLDING = {**{name: key for name, key in STRENGTHS.items() if name != "lwf"}, "lvt": "attention.strength"}
LONGER = ("increment.epochs=10",)  # enough steps for a strong spring to come to rest


def trained(strategy, data, tmp_path, settings=()):
    """The learner after two experiences, and its anchors and importances after the first."""
    _, parts = assembled(strategy, data, tmp_path, settings=tuple(settings))
    learner = parts.strategy
    for number, experience in enumerate(parts.streams.train):
        held = learner.held() if hasattr(learner, "held") else dict(learner.model.named_parameters())
        old = {n: p.detach().clone() for n, p in held.items()}
        torch.manual_seed(number)
        learner.train(experience, eval_streams=[])
    return learner, old


def drift(learner, old):
    now = dict(learner.model.named_parameters())
    return float(sum((now[n].detach() - w).square().sum() for n, w in old.items())) ** 0.5


@pytest.mark.parametrize("strategy", STRENGTHS)
def test_strength_zero_is_uniad_bit_by_bit(strategy, data, tmp_path):
    plain, _ = trained("uniad", data, tmp_path)
    learner, _ = trained(strategy, data, tmp_path, [f"{STRENGTHS[strategy]}=0"])
    one, other = plain.model.state_dict(), learner.model.state_dict()
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("strategy", HOLDING)
def test_old_weights_drift_less_the_stronger_they_are_held(strategy, data, tmp_path):
    """By factors of 100: a penalty without effect (the stock SI's on the CPU) shows no difference."""
    drifts = [
        drift(*trained(strategy, data, tmp_path, [f"{HOLDING[strategy]}={strength}", *LONGER]))
        for strength in (0, 1e-2, 1, 100)
    ]
    assert drifts == sorted(drifts, reverse=True) and len(set(drifts)) == len(drifts)
    assert drifts[-1] < 0.1 * drifts[0]


def test_lwf_keeps_the_old_reconstructions_the_stronger_it_distils(data, tmp_path):
    distances = []
    for strength in (0, 1, 100):
        _, parts = assembled("lwf", data, tmp_path, settings=(f"lwf.strength={strength}", *LONGER))
        learner, (first, second) = parts.strategy, parts.streams.train
        x = second.resident.features

        def reconstruction(learner=learner, x=x):
            learner.model.eval()
            with torch.no_grad():
                return learner.model(x).reconstruction

        learner.train(first, eval_streams=[])
        before = reconstruction()
        learner.train(second, eval_streams=[])
        distances.append(float((reconstruction() - before).square().mean()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]


def test_the_lwf_teacher_is_still_and_shares_nothing(data, tmp_path):
    _, parts = assembled("lwf", data, tmp_path)
    learner, (first, second) = parts.strategy, parts.streams.train
    learner.train(first, eval_streams=[])
    teacher = learner.teacher
    learnt = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    seen = []

    class Watch:
        def before_backward(self, strategy, **kwargs):
            seen.append((strategy.teacher is teacher, any(m.training for m in teacher.modules())))

    learner.plugins.insert(0, Watch())
    learner.train(second, eval_streams=[])
    assert set(seen) == {(True, False)}
    for name, weight in teacher.named_parameters():
        assert torch.equal(weight, learnt[name]) and not weight.requires_grad
        assert weight.data_ptr() != learner.model.get_parameter(name).data_ptr()


# Importances against independent computations --------------------------------------------------------


class Affine(nn.Module):
    """Reconstructs x [B, C, 1, 1] as W x + b."""

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Linear(channels, channels)

    def forward(self, features, guide=None):
        return Reconstruction(self.layer(features[:, :, 0, 0])[:, :, None, None], features)


@pytest.fixture
def affine():
    generator = torch.Generator().manual_seed(3)
    model = Affine(4)
    x = torch.randn(7, 4, generator=generator)
    with torch.no_grad():
        model.layer.weight.copy_(torch.randn(4, 4, generator=generator))
        model.layer.bias.copy_(torch.randn(4, generator=generator))
    resident = ResidentData(x[:, :, None, None], torch.zeros(7, dtype=torch.int64), None)
    return model, resident, x.double().numpy()


def test_fisher_information_of_an_affine_map_in_closed_form(affine):
    model, resident, x = affine
    chosen = torch.tensor([5, 0, 3, 6])
    found = quadratic.mean_over_images(
        model, dict(model.named_parameters()), resident, chosen, reconstruction_loss, torch.square
    )
    w, b = (p.detach().double().numpy() for p in model.parameters())
    rows = x[chosen.numpy()]
    residual = 2 / 4 * (rows @ w.T + b - rows)  # d loss / d output, one row an image
    fisher = np.mean([np.outer(r, i) ** 2 for r, i in zip(residual, rows)], axis=0)
    np.testing.assert_allclose(found["layer.weight"].numpy(), fisher, rtol=1e-5)
    np.testing.assert_allclose(found["layer.bias"].numpy(), (residual**2).mean(axis=0), rtol=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_mas_importances_equal_an_autograd_loop(affine):
    model, resident, x = affine
    everything = torch.arange(len(x))
    parameters = dict(model.named_parameters())
    found = quadratic.mean_over_images(model, parameters, resident, everything, mas.squared_output, torch.abs)
    twin = nn.Linear(4, 4).double()
    twin.load_state_dict({k: v.double() for k, v in model.layer.state_dict().items()})
    expected = [torch.zeros_like(p) for p in twin.parameters()]
    for row in torch.from_numpy(x):
        twin.zero_grad()
        (torch.linalg.vector_norm(twin(row)) ** 2).backward()
        for total, p in zip(expected, twin.parameters()):
            total += p.grad.abs() / len(x)
    for value, name in zip(expected, ("layer.weight", "layer.bias")):
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-7)


CURVATURE = torch.tensor([0.5, 1.0, 2.0, 4.0])
START, GOALS = torch.tensor([1.0, -1.0, 2.0, 0.5]), torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])


class Bowl(nn.Module):
    """For any input, its reconstruction loss is mean_i of curvature_i (theta_i - goal_i)^2."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(START.clone())
        self.goal = GOALS[0]

    def forward(self, features, guide=None):
        residual = CURVATURE.sqrt() * (self.theta - self.goal)
        return Reconstruction(residual[None, :, None, None], torch.zeros(1, 4, 1, 1))


def test_si_path_integral_of_a_quadratic_in_closed_form(data, tmp_path):
    """Plain SGD on a quadratic. The second experience has a penalty, whose gradient must not be counted."""
    rate, strength = 0.1, 0.3
    descent = [f"{b}.{k}" for b in ("base", "increment") for k in (
        "optimizer=sgd", f"lr={rate}", "weight_decay=0", "clip_norm=null", "schedule=constant",
        "warmup_iterations=0", "epochs=3",
    )]  # fmt: skip
    settings = (*descent, "network.standardise=false", f"si.strength={strength}")
    plan = tiny_plan("si", data, tmp_path, settings=settings)

    class OnBowl(plan.learner):
        def build_network(self):
            return Bowl()

    parts = assemble(dataclasses.replace(plan, learner=OnBowl), torch.device("cpu"), Progress(-1))
    learner, (first, second) = parts.strategy, parts.streams.train
    a = 2 / 4 * CURVATURE.double().numpy()  # gradient = a (theta - goal)

    learner.train(first, eval_streams=[])
    steps = 3 * 3  # 12 images in batches of 4, 3 epochs
    shrink = 1 - rate * a
    start = START.double().numpy()
    path = rate * a**2 * start**2 * (1 - shrink ** (2 * steps)) / (1 - shrink**2)
    np.testing.assert_allclose(learner.path["theta"].numpy(), path, rtol=1e-5)
    end = start * shrink**steps
    omega = path / ((end - start) ** 2 + 1e-3)
    omega /= omega.mean()
    np.testing.assert_allclose(learner.importances[0]["theta"].numpy(), omega, rtol=1e-5)

    learner.model.goal = GOALS[1]
    learner.train(second, eval_streams=[])
    theta, path = end.copy(), np.zeros(4)
    for _ in range(2 * 3):  # 6 images in batches of 4, 3 epochs
        task = a * (theta - 1.0)
        step = -rate * (task + 2 * strength * omega * (theta - end))
        path -= task * step
        theta += step
    np.testing.assert_allclose(learner.path["theta"].numpy(), path, rtol=1e-4)
    np.testing.assert_allclose(learner.model.theta.detach().numpy(), theta, rtol=1e-5)


def test_si_gives_no_weight_a_negative_importance():
    path_importance = si.path_importance
    path = {"w": torch.tensor([-2.0, 3.0, 50.0])}
    found = path_importance(path, {"w": torch.zeros(3)}, {"w": torch.tensor([1.0, 1.0, 0.0])}, 0.5)
    torch.testing.assert_close(found["w"], torch.tensor([0.0, 2.0, 100.0]))


def test_separate_ewc_keeps_every_experience_and_online_ewc_one(data, tmp_path):
    separate, _ = trained("ewc", data, tmp_path)
    online, _ = trained("ewc_online", data, tmp_path, ["ewc.decay=0.5"])
    parameters = sum(p.numel() for p in separate.model.parameters())
    assert len(separate.anchors) == len(separate.importances) == 2
    assert separate.bytes_kept == 2 * 2 * 4 * parameters
    assert online.bytes_kept == 2 * 4 * parameters
    # A mean of 1 an experience, the older one faded by half.
    total = sum(float(w.double().sum()) for w in online.importances[0].values())
    assert total / parameters == pytest.approx(1.5, rel=1e-5)


# LVT -----------------------------------------------------------------------------------------------------


def test_inter_task_attention_equals_its_formula():
    torch.manual_seed(0)
    tokens, channels, heads = 5, 6, 2
    attention = inter_task.InterTaskAttention(tokens, channels, heads, 0.1).double().eval()
    torch.nn.init.normal_(attention.bias)
    memory, position = torch.randn(3, tokens, channels).double(), torch.randn(tokens, channels).double()
    mask = ~torch.eye(tokens, dtype=torch.bool)
    found = attention(memory, position, mask=mask)
    q, v = attention.to_query(memory + position), attention.to_value(memory)
    parts = []
    for head in range(heads):
        own = slice(head * 3, head * 3 + 3)
        logits = q[..., own] @ attention.key[:, own].T / 3**0.5 + attention.bias[head]
        weights = logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        parts.append(weights @ v[..., own])
    torch.testing.assert_close(found, attention.out_proj(torch.cat(parts, dim=-1)))


def test_lvt_holds_keys_and_biases_and_remembers_what_it_reconstructs_best(data, tmp_path):
    _, parts = assembled("lvt", data, tmp_path, settings=("memory.per_object=2",))
    learner, first = parts.strategy, parts.streams.train[0]
    learner.train(first, eval_streams=[])
    assert {n.rsplit(".", 1)[1] for n in learner.importances[0]} == {"key", "bias"}
    learner.model.eval()
    with torch.no_grad():
        output = learner.model(first.resident.features)
    errors = output.distance().square().sum(dim=(1, 2))
    for wanted in (0, 1):
        mine = torch.nonzero(first.resident.objects == wanted).flatten()
        best = first.resident.features[mine[errors[mine].argsort()[:2]]].half()
        kept = learner.memory["features"][learner.memory["objects"] == wanted]
        assert torch.equal(kept.flatten(1).sort(dim=0).values, best.flatten(1).sort(dim=0).values)
    # Only the last experience's importances count.
    learner.train(parts.streams.train[1], eval_streams=[])
    total = sum(float(w.double().sum()) for w in learner.importances[0].values())
    assert total == pytest.approx(sum(p.numel() for p in learner.held().values()), rel=1e-5)


@pytest.mark.parametrize(
    ("strategy", "setting", "key"),
    [
        *((name, f"{key}=-1", key) for name, key in {**STRENGTHS, **HOLDING}.items()),
        ("ewc", "ewc.samples=0", "ewc.samples"),
        ("ewc_online", "ewc.decay=1.5", "ewc.decay"),
        ("si", "si.damping=0", "si.damping"),
        ("mas", "mas.strenght=1", "mas.strenght"),
    ],
)
def test_impossible_options_name_their_key(strategy, setting, key, data, tmp_path):
    with pytest.raises(InputError, match=rf"--set.*{key}"):
        tiny_plan(strategy, data, tmp_path, settings=(setting,))
