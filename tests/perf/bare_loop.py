"""IUF's quick training as a bare PyTorch loop over the same tensors, to measure the overhead of the harness.

Both sides end with bit-identical weights (tests/test_bench.py checks it).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from iufbench.bench.learner import Learner, build_learner
from iufbench.models.compression import RecentRows, tail_singular_values
from iufbench.models.iuf import token_means
from iufbench.models.projection import FeatureMatrix, project_gradients, pull_
from iufbench.support.seeding import derive, seed_everything

COUNTS = [[40] * 4, [40], [40]]
EPOCHS = 3
MOST_CALLS = 6


def learner(settings: tuple[str, ...] = ()) -> Learner:
    epochs = (f"base.epochs={EPOCHS}", f"increment.epochs={EPOCHS}")
    return build_learner("iuf", "quick", COUNTS, settings=(*epochs, *settings))


def harness_training() -> Callable[[], object]:
    """A call trains all experiences with the strategy, from the start; returns the weights' sum."""
    fresh = [learner() for _ in range(MOST_CALLS)]
    return lambda: weights_sum(train_with_harness(fresh.pop()).strategy.model)


def bare_training() -> Callable[[], object]:
    fresh = [learner() for _ in range(MOST_CALLS)]
    return lambda: weights_sum(train_barely(fresh.pop()))


def weights_sum(model: nn.Module) -> float:
    return float(sum(p.detach().double().sum() for p in model.parameters()))


def train_with_harness(made: Learner) -> Learner:
    for number, experience in enumerate(made.streams.train):
        seed_everything(number)
        made.strategy.train(experience, eval_streams=[])
    return made


def train_barely(made: Learner) -> nn.Module:
    strategy = made.strategy
    model, recipe, options = strategy.model, made.plan.recipe, made.plan.options
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in _normalisation(strategy))
    matrices: dict[str, FeatureMatrix] = {}
    model.train()
    for number, experience in enumerate(made.streams.train):
        seed_everything(number)
        data, schedule = experience.resident, recipe.training(number)
        if number == 0:
            model.fit_standardisation(data.features)
        projections = {name: matrix.projection() for name, matrix in matrices.items()}
        model.classifier.grow(max(model.classifier.objects, int(data.objects.max()) + 1))
        old = {k: v.detach().clone() for k, v in model.state_dict().items()}
        optimiser = _optimiser(model, schedule)
        per_epoch = -(-len(data) // schedule.batch_size)
        factor = _factor(schedule, schedule.epochs * per_epoch)
        order = torch.Generator().manual_seed(derive(strategy.context.seeds.order, "experience", number))
        window = RecentRows(options.scl.window)
        step = 0
        for _ in range(schedule.epochs):
            window.refresh()
            for index in torch.randperm(len(data), generator=order).split(schedule.batch_size):
                if number:
                    pull_(model, old, options.update.pull, include_buffers=options.update.pull_buffers)
                optimiser.param_groups[0]["lr"] = schedule.lr * factor(step)
                guide = (data.guide[index].float() / 255 - mean) / std
                out = model(data.features[index].float(), guide=guide)
                loss = F.mse_loss(out.reconstruction, out.target)
                classes = F.cross_entropy(out.class_logits, data.objects[index])
                loss = loss + options.oasa.weight * classes
                rows = [d.mean(dim=1) for d in out.decoder_features[:-1]]
                compression = tail_singular_values(window.with_new(rows), options.scl.first)
                loss = loss + options.scl.weight * compression.float()
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
                if number:
                    project_gradients(model, projections)
                optimiser.step()
                step += 1
        model.eval()
        with torch.no_grad(), token_means(model) as means:
            for index in torch.arange(len(data)).split(recipe.evaluation_batch_size):
                model(data.features[index].float(), guide=(data.guide[index].float() / 255 - mean) / std)
        model.train()
        for name, parts in means.items():
            rows_of = torch.cat(parts)
            known = matrices.get(name)
            matrices[name] = FeatureMatrix.of(rows_of) if known is None else known.merge(rows_of)
    return model


def _normalisation(strategy) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return strategy.context.pixel_mean, strategy.context.pixel_std


def _optimiser(model: nn.Module, schedule) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True)
    return torch.optim.SGD(parameters, lr=schedule.lr, weight_decay=schedule.weight_decay)


def _factor(schedule, iterations: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (schedule.warmup_iterations + 1))
        if schedule.schedule == "cosine":
            return warm * (0.5 + 0.5 * math.cos(math.pi * min(step / iterations, 1.0)))
        return warm

    return factor
