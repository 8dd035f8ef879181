"""The same mathematics, worked the way the released code works: what iufbench's speed is compared with.

Our own program, after the facts about that code: every image decoded again in every epoch, the whole backbone
in every step, attention that also returns its weights, an object classifier on the full 224x224 image whose
maps are kept whole, singular-value windows of whole token tensors, one Python loop over parameters for the
pull and one for the projected step (V^T D V multiplied out anew each time), evaluation image by image through
files, and scikit-learn's curves. Parameter names are iufbench's, so that weights can be copied over.
"""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torch import Tensor, nn
from torchvision.transforms.functional import normalize, to_tensor

sys.path.append(str(Path(__file__).parents[1] / "metrics"))
from aupro_oracle import aupro_by_sorting

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_image(path: Path, size: int) -> Tensor:
    image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return normalize(to_tensor(image), MEAN, STD)


class Backbone(nn.Module):
    """EfficientNet-b4 run to its end, head and classifier included; four of its maps are stacked."""

    def __init__(self, name: str = "tf_efficientnet_b4") -> None:
        super().__init__()
        self.model = timm.create_model(name, pretrained=False).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        model = self.model
        x, maps = model.bn1(model.conv_stem(images)), []
        for number, stage in enumerate(model.blocks):
            x = stage(x)
            if number in (0, 1, 2, 4):
                maps.append(x)
        model.forward_head(model.bn2(model.conv_head(x)))
        size = (images.shape[-2] // 16, images.shape[-1] // 16)
        return torch.cat([F.interpolate(m, size, mode="bilinear", align_corners=True) for m in maps], 1)


class EncoderLayer(nn.Module):
    def __init__(self, e: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(e, heads, dropout=dropout)
        self.linear1, self.linear2 = nn.Linear(e, feedforward), nn.Linear(feedforward, e)
        self.norm1, self.norm2 = nn.LayerNorm(e), nn.LayerNorm(e)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, guide: Tensor | None, mask: Tensor | None) -> Tensor:
        query = x + position
        looked = self.self_attn(query if guide is None else query * guide, query, x, attn_mask=mask)[0]
        x = self.norm1(x + self.dropout(looked))
        return self.norm2(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class DecoderLayer(nn.Module):
    def __init__(self, tokens: int, e: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.learned_embed = nn.Embedding(tokens, e)
        self.self_attn = nn.MultiheadAttention(e, heads, dropout=dropout)
        self.multihead_attn = nn.MultiheadAttention(e, heads, dropout=dropout)
        self.linear1, self.linear2 = nn.Linear(e, feedforward), nn.Linear(feedforward, e)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(e), nn.LayerNorm(e), nn.LayerNorm(e)
        self.dropout = nn.Dropout(dropout)

    def forward(self, previous: Tensor, memory: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        table = self.learned_embed.weight[:, None].expand(-1, memory.shape[1], -1)
        x = self.self_attn(table + position, memory + position, memory, attn_mask=mask)[0]
        x = self.norm1(table + self.dropout(x))
        looked = self.multihead_attn(x + position, previous + position, previous, attn_mask=mask)[0]
        x = self.norm2(x + self.dropout(looked))
        return self.norm3(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class RowAttention(nn.Module):
    def __init__(self, e: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(e, e) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        def split(t: Tensor) -> Tensor:
            return t.unflatten(-1, (self.heads, -1)).permute(0, 1, 3, 2, 4)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
        return self.out((weights @ v).permute(0, 1, 3, 2, 4).flatten(-2))


class Block(nn.Module):
    def __init__(self, e: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.norm1, self.self_attention, self.norm2 = nn.LayerNorm(e), RowAttention(e, heads), nn.LayerNorm(e)
        self.mlp = nn.Sequential(nn.Linear(e, mlp), nn.GELU(), nn.Linear(mlp, e))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Classifier(nn.Module):
    def __init__(self, objects: int, e: int, depth: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, e, 1, bias=False), nn.BatchNorm2d(e)
        self.blocks = nn.ModuleList(Block(e, heads, mlp) for _ in range(depth))
        self.fc = nn.Sequential(nn.Linear(e, e), nn.ReLU(), nn.Linear(e, objects))

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, maps = F.relu(self.bn1(self.conv1(image))).permute(0, 2, 3, 1), []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return self.fc(x.mean((1, 2))), maps


class PlainNetwork(nn.Module):
    """UniAD, or IUF when ``objects`` is given. ``mask``: additive, as nn.MultiheadAttention takes it."""

    def __init__(
        self,
        channels: int,
        side: int,
        e: int,
        heads: int,
        feedforward: int,
        layers: int,
        dropout: float,
        jitter: float,
        objects: int | None = None,
        classifier_mlp: int = 128,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.side, self.mask, self.jitter = side, mask, jitter
        self.pos_embed = nn.Module()
        self.pos_embed.row_embed = nn.Embedding(side, e // 2)
        self.pos_embed.col_embed = nn.Embedding(side, e // 2)
        self.input_proj, self.output_proj = nn.Linear(channels, e), nn.Linear(e, channels)
        self.transformer = nn.Module()
        self.transformer.encoder, self.transformer.decoder = nn.Module(), nn.Module()
        self.transformer.encoder.layers = nn.ModuleList(
            EncoderLayer(e, heads, feedforward, dropout) for _ in range(layers)
        )
        self.transformer.decoder.layers = nn.ModuleList(
            DecoderLayer(side * side, e, heads, feedforward, dropout) for _ in range(layers)
        )
        self.transformer.decoder.norm = nn.LayerNorm(e)
        self.classifier = None if objects is None else Classifier(objects, e, layers, 4, classifier_mlp)

    def forward(self, features: Tensor, image: Tensor | None) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Reconstruction [B, C, h, w], decoder layers' outputs [L, B, E], class logits."""
        b, c, side = len(features), features.shape[1], self.side
        tokens = features.flatten(2).permute(2, 0, 1)
        if self.training and self.jitter:
            scale = tokens.norm(dim=2, keepdim=True) / c * self.jitter
            tokens = tokens + torch.randn_like(tokens) * scale
        columns = self.pos_embed.col_embed.weight[None].expand(side, -1, -1)
        rows = self.pos_embed.row_embed.weight[:, None].expand(-1, side, -1)
        position = torch.cat([columns, rows], -1).flatten(0, 1)[:, None].expand(-1, b, -1)
        logits, maps = None, []
        if self.classifier is not None:
            logits, maps = self.classifier(image)
        x = self.input_proj(tokens)
        for i, layer in enumerate(self.transformer.encoder.layers):
            guide = None
            if maps:
                pooled = F.adaptive_avg_pool2d(maps[i].detach().permute(0, 3, 1, 2), side)
                guide = pooled.flatten(2).permute(2, 0, 1)
            x = layer(x, position, guide, self.mask)
        memory, outputs = x, []
        for layer in self.transformer.decoder.layers:
            x = layer(x, memory, position, self.mask)
            outputs.append(self.transformer.decoder.norm(x))
        out = self.output_proj(outputs[-1]).permute(1, 2, 0).reshape(features.shape)
        return out, outputs, logits


class PlainTraining:
    """The released training step: network, losses, pull, clipping, optimiser."""

    def __init__(self, network: PlainNetwork, backbone: nn.Module | None, released: bool, increment: bool):
        self.network, self.backbone, self.released = network, backbone, released
        self.increment = increment
        self.window: list[Tensor] = []
        parameters = list(network.parameters())
        self.adamw = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-4, foreach=False)
        self.old = {k: v.clone() for k, v in self.everything().items()}
        self.projected = [n for n, _ in network.named_modules() if n.endswith("linear2")]
        e = network.input_proj.out_features
        self.vectors = {n: torch.linalg.svd(torch.randn(2 * e, e))[2] for n in self.projected}
        self.weights = torch.log(torch.arange(1, e + 1)) / math.log(e)

    def everything(self) -> dict[str, Tensor]:
        frozen = {} if self.backbone is None else self.backbone.state_dict()
        return {**{f"backbone.{k}": v for k, v in frozen.items()}, **self.network.state_dict()}

    def step(self, paths: list[Path], images: Tensor | None, labels: Tensor, features: Any = None) -> float:
        """From files to updated weights; ``images`` or ``features`` skip what came before them."""
        if self.released and self.increment:
            self.pull()
        if images is None:
            images = torch.stack([load_image(path, 224) for path in paths])
        if features is None:
            assert self.backbone is not None
            features = self.backbone(images)
        out, outputs, logits = self.network(features, images)
        loss = F.mse_loss(out, features)
        if logits is not None:
            loss = loss + F.cross_entropy(logits, F.one_hot(labels, logits.shape[1]).double())
        if self.released:
            loss = loss + 10 * self.singular_values(outputs[:-1])
        for parameter in self.network.parameters():
            parameter.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 0.1)
        if self.released and self.increment:
            self.projected_sgd()
        else:
            self.adamw.step()
        return float(loss)

    @torch.no_grad()
    def pull(self) -> None:
        for name, value in self.everything().items():
            value.copy_(0.05 * self.old[name] + 0.95 * value)

    @torch.no_grad()
    def singular_values(self, outputs: list[Tensor]) -> Tensor:
        """Windows hold whole token tensors [N, E, L]; only their mean over tokens is used."""
        parts = [o.detach().permute(1, 2, 0) for o in outputs]
        self.window = [torch.cat([w, p])[-768:] for w, p in zip(self.window, parts)] if self.window else parts
        total = torch.zeros(())
        for whole in self.window:
            values = torch.linalg.svd(whole.mean(-1))[1]
            values = values / values.sum()
            total = total + values[values < 0.1 / 256].sum() / len(self.window)
        return total

    @torch.no_grad()
    def projected_sgd(self) -> None:
        for name, parameter in self.network.named_parameters():
            if parameter.grad is None:
                continue
            gradient = parameter.grad
            vectors = self.vectors.get(name.replace(".weight", "").replace(".bias", ""))
            if vectors is not None:
                column = gradient.unsqueeze(-1) if gradient.ndim == 1 else gradient
                column = vectors.T @ torch.diag(self.weights) @ (vectors @ column)
                gradient = column.squeeze(-1) if gradient.ndim == 1 else column
            parameter.add_(gradient, alpha=-1.0)


@torch.no_grad()
def evaluate(network: PlainNetwork, sets: list[tuple[Tensor, Tensor | None, np.ndarray]], folder: Path):
    """Per object features [N, C, h, w], images, masks: one by one, through files, scikit-learn's curves."""
    network.eval()
    results = []
    for number, (features, images, masks) in enumerate(sets):
        for i in range(len(features)):
            x = features[i : i + 1].float()
            out, _, _ = network(x, None if images is None else images[i : i + 1])
            distance = torch.sqrt(((out - x) ** 2).sum(1, keepdim=True))
            full = F.interpolate(distance, masks.shape[1:], mode="bilinear", align_corners=True)[0, 0]
            np.savez(folder / f"{number}_{i}.npz", pred=full.numpy(), mask=masks[i].astype(np.float32))
        parts = [np.load(folder / f"{number}_{i}.npz") for i in range(len(features))]
        preds = np.stack([p["pred"] for p in parts])
        found = np.stack([p["mask"] for p in parts]) > 0.5
        results.append(metrics(found, preds))
    return results


def metrics(masks: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    """All image and pixel metrics of one object."""
    pooled = F.avg_pool2d(torch.from_numpy(maps)[:, None], 16, stride=1)
    scores, labels = pooled.flatten(1).amax(1).numpy(), masks.any(axis=(1, 2))
    levels = (("image", labels, scores), ("pixel", masks.ravel(), maps.ravel()))
    found = {f"{level}_{k}": v for level, y, s in levels for k, v in curves(y, s).items()}
    return {
        **found,
        **{f"pixel_aupro_{round(100 * x):02d}": aupro_by_sorting(masks, maps, x) for x in (0.3, 0.05)},
    }


def curves(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    precision, recall, _ = precision_recall_curve(labels, scores)
    return {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
        "f1_max": float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))),
    }


def network_for(learner: Any) -> PlainNetwork:
    """The plain network with a learner's sizes and weights."""
    recipe, model = learner.plan.recipe, learner.strategy.model
    size, classifier = recipe.network, getattr(model, "classifier", None)
    if size.encoder_layers != size.decoder_layers or size.standardise:
        raise ValueError("the plain network has as many decoder as encoder layers and no standardisation")
    mask = None
    if size.neighbour_mask is not None:
        mask = torch.zeros(model._mask.shape).masked_fill(~model._mask, -math.inf)
    network = PlainNetwork(
        model.channels,
        model.feature_size[0],
        size.hidden,
        size.heads,
        size.feedforward,
        size.encoder_layers,
        size.dropout,
        size.jitter_scale,
        objects=None if classifier is None else classifier.objects,
        mask=mask,
    )
    network.load_state_dict(copy.deepcopy(model.state_dict()))
    return network
