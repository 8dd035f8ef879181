"""IUF (Tang et al., ECCV 2024): three components against forgetting, each of which the card can disable.

Object-aware self-attention (``oasa``), the semantic compression loss (``scl``) and the update strategy
(``update``: pull to the old weights, gradients projected away from the old objects' main directions).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iufbench.data.resident import Batch, Batches
from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.context import Uses
from iufbench.models.compression import (
    RecentRows,
    StaticRows,
    semantic_compression,
    tail_by_products,
    tail_singular_values,
)
from iufbench.models.iuf import IUFNetwork, token_means
from iufbench.models.projection import FeatureMatrix, project_gradients, pull_
from iufbench.models.uniad import Reconstruction
from iufbench.support.device import has_fast_float64
from iufbench.support.fields import number

CLASSIFIER = "classifier."  # prefix of its entries in the network's state dict
RELEASED_RATIO = 0.1  # the released code sums normalised singular values below 0.1/256


@dataclass(frozen=True)
class ObjectAwareAttention:
    """The object classifier whose inner maps modulate the encoder's queries.

    ``resolution``: side in pixels of its input image; ``weight`` of its cross-entropy (lambda 1).
    """

    enabled: bool = True
    resolution: int = number(224, at_least=8)
    heads: int = number(4, at_least=1)
    mlp: int = number(128, at_least=1)
    weight: float = number(0.5, at_least=0)


@dataclass(frozen=True)
class SemanticCompression:
    """The loss on small singular values of decoder features (lambda 2 = ``weight``).

    ``form``: ``published`` sums the normalised singular values from index ``first`` on; ``released`` sums
    those below 0.1/256. ``gradient`` false computes the value only, as the released code does.
    ``window``: number of rows from earlier batches (without gradient) added to the current batch.
    """

    enabled: bool = True
    weight: float = number(1.0, at_least=0)
    form: Literal["published", "released"] = "published"
    first: int = number(16, at_least=1)
    window: int = number(768, at_least=0)
    gradient: bool = True
    increments: bool = True


@dataclass(frozen=True)
class UpdateStrategy:
    """Protection of old objects in increments.

    ``pull``: before every iteration theta <- (1 - pull) * theta + pull * theta_old, ``pull_buffers``
    includes BatchNorm's statistics, ``pull_classifier`` the object classifier. ``projection``: project
    gradients, with the weights of directions to the power ``projection_power``; ``collect_every_epochs``
    collects feature matrices only when the global epoch count is a multiple (the released code: 2000), null
    at the end of every experience. ``clip_classifier``: include the classifier's gradients in the clipped
    norm in increments; otherwise they are clipped separately.
    """

    enabled: bool = True
    pull: float = number(0.05, at_least=0, at_most=1)
    pull_buffers: bool = True
    pull_classifier: bool = True
    projection: bool = True
    projection_power: float = number(1.0, at_least=0)
    clip_classifier: bool = True
    collect_every_epochs: int | None = number(None, at_least=1)


class IUF(ReconstructionStrategy):
    """The IUF network with its losses and its update strategy."""

    @dataclass(frozen=True)
    class Options:
        oasa: ObjectAwareAttention = field(default_factory=ObjectAwareAttention)
        scl: SemanticCompression = field(default_factory=SemanticCompression)
        update: UpdateStrategy = field(default_factory=UpdateStrategy)

    uses: ClassVar[Uses] = Uses(object_id_at_training=True)
    carried: ClassVar[tuple[str, ...]] = ("epochs_done", "matrices")
    within: ClassVar[tuple[str, ...]] = ("epochs_done", "window", "matrices")

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        context = self.context
        mean = torch.tensor(context.pixel_mean, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(context.pixel_std, device=self.device).view(1, 3, 1, 1)
        self._pixels = (mean, std)
        self._old_state: dict[str, Tensor] | None = None
        self.feature_matrices: dict[str, FeatureMatrix] = {}
        self._projections: dict[str, Tensor] = {}
        self._recent = self._made_window()
        self.epochs_done = 0

    @classmethod
    def guide_size(cls, options: Any, image_size: int) -> int | None:
        return options.oasa.resolution if options.oasa.enabled else None

    def build_network(self) -> nn.Module:
        oasa = self.options.oasa
        return IUFNetwork(
            objects=1,
            oasa=oasa.enabled,
            classifier_heads=oasa.heads,
            classifier_mlp=oasa.mlp,
            **self.network_arguments(),
        )

    def adapt_network(self) -> None:
        # The classifier is extended only when an object arrives.
        if self.model.classifier is not None:
            known = self.model.classifier.objects
            self.model.classifier.grow(max(known, int(self.experience.resident.objects.max()) + 1))

    def restore(self, state: dict[str, Any]) -> None:
        if self.model.classifier is not None:
            self.model.classifier.grow(len(state["network"]["classifier.fc.2.weight"]))
        super().restore(state)
        self._projections = self._made_projections()

    @property
    def matrices(self) -> dict[str, dict[str, Any]]:
        """The feature matrices as plain values, for checkpoints."""
        return {n: {"factor": m.factor, "rows": m.rows} for n, m in self.feature_matrices.items()}

    @matrices.setter
    def matrices(self, values: dict[str, dict[str, Any]]) -> None:
        self.feature_matrices = {n: FeatureMatrix(**m) for n, m in values.items()}

    @property
    def window(self) -> list[Tensor]:
        """The rows of earlier batches used by the semantic compression loss, for checkpoints."""
        return list(self._recent.batches)

    @window.setter
    def window(self, batches: list[Tensor]) -> None:
        self._recent.reset(batches)

    def _made_window(self) -> RecentRows | StaticRows:
        """Empty; its kind decides whether the compression loss is computed within captured iterations."""
        scl = self.options.scl
        static = scl.form == "published" and has_fast_float64(self.device)
        return StaticRows(scl.window) if static else RecentRows(scl.window)

    def forward(self) -> Reconstruction:
        return self._reconstruct(self.mbatch)

    def _reconstruct(self, batch: Batch) -> Reconstruction:
        guide = None
        if batch.guide is not None:
            mean, std = self._pixels
            guide = (batch.guide.float() / 255 - mean) / std
        return self.network(batch.x, guide=guide)

    # Losses ------------------------------------------------------------------------------------------

    @property
    def _is_increment(self) -> bool:
        return self.experience.current_experience > 0

    def losses(self) -> dict[str, Tensor]:
        terms = super().losses()
        oasa = self.options.oasa
        if oasa.enabled:
            terms["classification"] = oasa.weight * F.cross_entropy(self.mb_output.class_logits, self.mb_y)
        if isinstance(self._recent, StaticRows) and (rows := self._compressed()):
            scl = self.options.scl
            given = rows if scl.gradient else [layer.detach() for layer in rows]
            loss = tail_by_products(self._recent.joined(given), scl.first)
            terms["compression"] = scl.weight * loss.to(rows[0].dtype)
        return terms

    def _after_training_iteration(self, **kwargs: Any) -> None:
        if isinstance(self._recent, StaticRows):
            with torch.no_grad():
                if rows := self._compressed():
                    self._recent.keep(torch.stack(rows))
        super()._after_training_iteration(**kwargs)

    def apart(self) -> list[Tensor]:
        return [] if isinstance(self._recent, StaticRows) else self._compressed()

    def _compressed(self) -> list[Tensor]:
        """Token means [B, E] of the decoder layers used by the semantic compression loss."""
        scl, features = self.options.scl, self.mb_output.decoder_features
        if not (scl.enabled and (scl.increments or not self._is_increment)):
            return []
        # The last layer's output is the reconstruction itself; the inner layers hold the semantics.
        return [layer.mean(dim=1) for layer in features[:-1] or features]

    def losses_apart(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        if not tensors:
            return {}
        scl = self.options.scl
        assert isinstance(self._recent, RecentRows)
        gram = self._recent.with_new(tensors if scl.gradient else [rows.detach() for rows in tensors])
        if scl.form == "released":
            loss = semantic_compression(gram, RELEASED_RATIO)
        else:
            loss = tail_singular_values(gram, scl.first)
        return {"compression": scl.weight * loss.to(tensors[0].dtype)}

    # Update strategy -----------------------------------------------------------------------------------

    def _before_training_exp(self, **kwargs: Any) -> None:
        self._recent = self._made_window()
        super()._before_training_exp(**kwargs)
        self._old_state = None
        if self._pulls and self._is_increment:
            self._old_state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    @property
    def _pulls(self) -> bool:
        return self.options.update.enabled and self.options.update.pull > 0

    def _made_projections(self) -> dict[str, Tensor]:
        power = self.options.update.projection_power
        return {name: matrix.projection(power) for name, matrix in self.feature_matrices.items()}

    def _before_training_epoch(self, **kwargs: Any) -> None:
        self._recent.refresh()
        super()._before_training_epoch(**kwargs)

    def _before_forward(self, **kwargs: Any) -> None:
        if self._old_state is not None:
            update = self.options.update
            left_alone = () if update.pull_classifier else (CLASSIFIER,)
            pull_(self.model, self._old_state, update.pull, update.pull_buffers, left_alone)
        super()._before_forward(**kwargs)

    def clipped_together(self) -> list[list[nn.Parameter]]:
        classifier = self.model.classifier
        if classifier is None or self.options.update.clip_classifier or not self._is_increment:
            return super().clipped_together()
        others = [p for n, p in self.model.named_parameters() if not n.startswith(CLASSIFIER)]
        return [others, list(classifier.parameters())]

    def _before_update(self, **kwargs: Any) -> None:
        super()._before_update(**kwargs)
        if self._projections and self._is_increment:
            project_gradients(self.model, self._projections)

    def _after_training_epoch(self, **kwargs: Any) -> None:
        super()._after_training_epoch(**kwargs)
        self.epochs_done += 1
        every = self.options.update.collect_every_epochs
        if every is not None and self.epochs_done % every == 0:
            self._collect()

    def _after_training_exp(self, **kwargs: Any) -> None:
        if self.options.update.collect_every_epochs is None:
            self._collect()
        # As in the released code and the paper: an experience uses the matrices that existed at its start.
        self._projections = self._made_projections()
        super()._after_training_exp(**kwargs)

    def beside_network(self) -> dict[str, Any]:
        old = self.model.state_dict() if self._pulls else {}  # of which the next experience takes a copy
        return {**super().beside_network(), "projections": self._projections, "old": old}

    @torch.no_grad()
    def _collect(self) -> None:
        """Add the token means of the projected layers over this experience's images to the old rows."""
        update = self.options.update
        if not (update.enabled and update.projection):
            return
        self.model.eval()
        with token_means(self.model) as means:
            for batch in Batches(self.experience.resident, self.eval_mb_size):
                self._reconstruct(batch.to(self.device))
        self.model.train()
        for name, parts in means.items():
            rows, old = torch.cat(parts), self.feature_matrices.get(name)
            self.feature_matrices[name] = FeatureMatrix.of(rows) if old is None else old.merge(rows)
