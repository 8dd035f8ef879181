"""IUF and its training in elementary operations on a dictionary of tensors, as an oracle.

Shares no code with iufbench. No dropout, no feature jitter, no standardisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BN_MOMENTUM = 0.1


@dataclass
class Setting:
    """The schedule of one experience. ``rate(epoch, iteration)``: the learning rate, both counted from 0."""

    epochs: int
    batch: int
    rate: Callable[[int, int], float]
    adamw: bool = True
    decay: float = 0.0
    clip: float = 0.1


@dataclass
class Parts:
    """IUF's own parameters; the defaults disable everything."""

    classification: float = 0.0
    compression: float = 0.0
    compression_from: int | None = None  # None: the released form, values below 0.1/256
    compression_gradient: bool = True
    compression_in_increments: bool = True
    window: int = 768
    pull: float = 0.0
    collect_every: int | None = None
    collect: bool = False


@dataclass
class Forward:
    reconstruction: Tensor
    decoder: list[Tensor]
    logits: Tensor | None
    linear2: dict[str, Tensor]


def layer_norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def heads_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention head by head, on [..., L, E]."""
    size = q.shape[-1] // heads
    outputs = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(-1, -2) / math.sqrt(size)
        outputs.append(torch.softmax(scores, -1) @ v[..., part])
    return torch.cat(outputs, -1)


class PlainIUF:
    """State, forward pass and training of the IUF network (or UniAD without a classifier)."""

    def __init__(self, state: dict[str, Tensor], trainable: Iterable[str], heads: int, classifier_heads: int):
        self.w = {n: t.detach().clone() for n, t in state.items()}
        self.trainable = list(trainable)
        self.heads, self.classifier_heads = heads, classifier_heads
        self.rows: dict[str, list[Tensor]] = {}
        self.epochs_done = 0
        self.log: list[dict[str, float]] = []

    def layers(self, kind: str) -> list[str]:
        prefix = f"transformer.{kind}.layers."
        numbers = {int(n[len(prefix) :].split(".")[0]) for n in self.w if n.startswith(prefix)}
        return [f"{prefix}{i}" for i in sorted(numbers)]

    # Forward -----------------------------------------------------------------------------------------

    def forward(self, features: Tensor, image: Tensor | None, training: bool) -> Forward:
        w = self.w
        b, c, height, width = features.shape
        tokens = features.permute(0, 2, 3, 1).reshape(b, height * width, c)
        row, column = w["pos_embed.row_embed.weight"], w["pos_embed.col_embed.weight"]
        position = torch.stack(
            [torch.cat([column[i % width], row[i // width]]) for i in range(height * width)]
        )
        logits, maps = None, None
        if "classifier.conv1.weight" in w:
            assert image is not None
            logits, maps = self.classify(image, height, width, training)
        linear2: dict[str, Tensor] = {}
        x = linear(tokens, w, "input_proj")
        for i, name in enumerate(self.layers("encoder")):
            query = x + position if maps is None else (x + position) * maps[i]
            x = layer_norm(x + self.attend(f"{name}.self_attn", query, x + position, x), w, f"{name}.norm1")
            x = layer_norm(x + self.mlp(x, name, linear2), w, f"{name}.norm2")
        memory = previous = x
        decoder = []
        for name in self.layers("decoder"):
            table = w[f"{name}.learned_embed.weight"].expand(b, -1, -1)
            looked = self.attend(f"{name}.self_attn", table + position, memory + position, memory)
            x = layer_norm(table + looked, w, f"{name}.norm1")
            looked = self.attend(f"{name}.multihead_attn", x + position, previous + position, previous)
            x = layer_norm(x + looked, w, f"{name}.norm2")
            x = layer_norm(x + self.mlp(x, name, linear2), w, f"{name}.norm3")
            previous = x
            decoder.append(layer_norm(x, w, "transformer.decoder.norm"))
        out = linear(decoder[-1], w, "output_proj")
        reconstruction = out.reshape(b, height, width, c).permute(0, 3, 1, 2)
        return Forward(reconstruction, decoder, logits, linear2)

    def attend(self, name: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = self.w[f"{name}.in_proj_weight"].chunk(3)
        biases = self.w[f"{name}.in_proj_bias"].chunk(3)
        q, k, v = (t @ m.T + c for t, m, c in zip((query, key, value), weights, biases))
        return linear(heads_attention(q, k, v, self.heads), self.w, f"{name}.out_proj")

    def mlp(self, x: Tensor, name: str, linear2: dict[str, Tensor]) -> Tensor:
        out = linear(linear(x, self.w, f"{name}.linear1").clamp(min=0), self.w, f"{name}.linear2")
        linear2[f"{name}.linear2"] = out
        return out

    def classify(self, image: Tensor, height: int, width: int, training: bool) -> tuple[Tensor, list[Tensor]]:
        w, bn = self.w, "classifier.bn1"
        x = torch.einsum("bchw,ec->bhwe", image, w["classifier.conv1.weight"][:, :, 0, 0])
        if training:
            count = x.numel() // x.shape[-1]
            mean = x.mean((0, 1, 2))
            variance = (x - mean).square().mean((0, 1, 2))
            unbiased = variance.detach() * count / (count - 1)
            for part, value in (("running_mean", mean.detach()), ("running_var", unbiased)):
                w[f"{bn}.{part}"] = (1 - BN_MOMENTUM) * w[f"{bn}.{part}"] + BN_MOMENTUM * value
            w[f"{bn}.num_batches_tracked"] = w[f"{bn}.num_batches_tracked"] + 1
        else:
            mean, variance = w[f"{bn}.running_mean"], w[f"{bn}.running_var"]
        x = ((x - mean) / (variance + 1e-5).sqrt() * w[f"{bn}.weight"] + w[f"{bn}.bias"]).clamp(min=0)
        maps = []
        for i in range(len(self.layers("encoder"))):
            name = f"classifier.blocks.{i}"
            n = layer_norm(x, w, f"{name}.norm1")
            q, k, v = (linear(n, w, f"{name}.self_attention.{part}") for part in ("query", "key", "value"))
            attended = heads_attention(q, k, v, self.classifier_heads)  # [B, row, pixel, E]: within rows
            x = x + linear(attended, w, f"{name}.self_attention.out")
            hidden = linear(layer_norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.0")
            gelu = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
            x = x + linear(gelu, w, f"{name}.mlp.2")
            b, size, _, e = x.shape
            blocks = x.detach().reshape(b, height, size // height, width, size // width, e)
            maps.append(blocks.mean((2, 4)).reshape(b, height * width, e))
        pooled = linear(x.mean((1, 2)), w, "classifier.fc.0").clamp(min=0)
        return linear(pooled, w, "classifier.fc.2"), maps

    # Training ----------------------------------------------------------------------------------------

    def train(
        self,
        features: Tensor,
        images: Tensor | None,
        labels: Tensor,
        setting: Setting,
        parts: Parts,
        increment: bool,
        seed: int,
    ) -> None:
        """Train one experience; ``seed`` determines the order of the images."""
        order = torch.Generator().manual_seed(seed)
        old = {n: t.clone() for n, t in self.w.items()}
        projections = {n: self.projection(torch.cat(r)) for n, r in self.rows.items()} if increment else {}
        moments = {n: (torch.zeros_like(self.w[n]), torch.zeros_like(self.w[n])) for n in self.trainable}
        window: list[list[Tensor]] = []
        iteration = 0
        for epoch in range(setting.epochs):
            sums: dict[str, float] = {}
            for index in torch.randperm(len(features), generator=order).split(setting.batch):
                if increment and parts.pull:
                    self.pull(old, parts.pull)
                for n in self.trainable:
                    self.w[n] = self.w[n].detach().requires_grad_()
                image = None if images is None else images[index]
                terms = self.terms(features[index], image, labels[index], parts, increment, window)
                for n, value in terms.items():
                    sums[n] = sums.get(n, 0.0) + float(value) * len(index)
                gradients = torch.autograd.grad(
                    torch.stack(list(terms.values())).sum(), [self.w[n] for n in self.trainable]
                )
                norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
                scale = min(1.0, setting.clip / (norm + 1e-6))
                rate = setting.rate(epoch, iteration)
                iteration += 1
                with torch.no_grad():
                    for n, g in zip(self.trainable, gradients):
                        g = g * scale
                        layer = n.rpartition(".")[0]
                        if layer in projections:
                            g = projections[layer] @ g
                        self.w[n] = self.step(self.w[n], g, moments[n], iteration, rate, setting)
            self.log.append({n: value / len(features) for n, value in sums.items()})
            self.epochs_done += 1
            if parts.collect and parts.collect_every and self.epochs_done % parts.collect_every == 0:
                self.collect(features, images)
        if parts.collect and parts.collect_every is None:
            self.collect(features, images)

    def terms(
        self,
        features: Tensor,
        image: Tensor | None,
        labels: Tensor,
        parts: Parts,
        increment: bool,
        window: list[list[Tensor]],
    ) -> dict[str, Tensor]:
        out = self.forward(features, image, training=True)
        terms = {"reconstruction": (out.reconstruction - features).square().mean()}
        if out.logits is not None:
            logarithms = out.logits - torch.logsumexp(out.logits, 1, keepdim=True)
            picked = torch.stack([logarithms[i, int(label)] for i, label in enumerate(labels)])
            terms["classification"] = -parts.classification * picked.mean()
        if parts.compression and (parts.compression_in_increments or not increment):
            rows = [d.mean(1) for d in out.decoder[:-1]]
            values = []
            for i, new in enumerate(rows):
                all_rows = torch.cat([*(batch[i] for batch in window), new])
                s = torch.linalg.svdvals(all_rows if parts.compression_gradient else all_rows.detach())
                s = s / s.sum()
                first = parts.compression_from
                values.append(s[s < 0.1 / 256].sum() if first is None else s[first:].sum())
            terms["compression"] = parts.compression * sum(values) / len(values)
            window.append([r.detach() for r in rows])
            while sum(len(batch[0]) for batch in window) > parts.window:
                window.pop(0)
        return terms

    @staticmethod
    def step(
        value: Tensor,
        gradient: Tensor,
        moments: tuple[Tensor, Tensor],
        t: int,
        rate: float,
        setting: Setting,
    ) -> Tensor:
        if not setting.adamw:
            return value.detach() - rate * (gradient + setting.decay * value.detach())
        m, v = moments
        m.mul_(0.9).add_(0.1 * gradient)
        v.mul_(0.999).add_(0.001 * gradient.square())
        kept = value.detach() * (1 - rate * setting.decay)
        return kept - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)

    def pull(self, old: dict[str, Tensor], rate: float) -> None:
        for n, value in self.w.items():
            mixed = rate * old[n].double() + (1 - rate) * value.detach().double()
            self.w[n] = mixed.trunc().long() if value.dtype == torch.int64 else mixed.to(value.dtype)

    @torch.no_grad()
    def collect(self, features: Tensor, images: Tensor | None) -> None:
        for n, value in self.forward(features, images, training=False).linear2.items():
            self.rows.setdefault(n, []).append(value.mean(1))

    @staticmethod
    def projection(rows: Tensor) -> Tensor:
        """V^T diag(d) V over a full basis; directions without any row are free."""
        channels = rows.shape[1]
        _, s, vh = np.linalg.svd(rows.double().numpy(), full_matrices=True)
        d = np.ones(channels)
        seen = int((s > 1e-5 * s[0]).sum())
        d[:seen] = np.log(1 + np.arange(seen)) / math.log(channels)
        return torch.from_numpy(vh.T @ np.diag(d) @ vh).to(rows.dtype)
