"""Every data set's tiny tree trains and is evaluated for two experiences, without and with gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trees
from tiny import tiny_run

from iufbench.cards.datasets import dataset_cards
from iufbench.engine import assembly
from iufbench.reporting.store import Run
from iufbench.support.progress import Progress
from iufbench.trust.verify import verify_run

# Data sets of one object run as streams of that object (test_stream_cards).
SEVERAL = [name for name in trees.TREES if len(dataset_cards()[name].objects) > 1]
BOTH_KINDS = [(name, strategy) for name in SEVERAL for strategy in ("patchcore", "uniad")]


@pytest.fixture(scope="module")
def run_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Run]]:
    """(data set, strategy) -> the finished run on its tree, done once; all share one backbone."""
    roots: dict[object, Path] = {}
    backbone: list = []
    load = assembly.load_backbone

    def loaded(plan, device):
        backbone[:] = backbone or [load(plan, device)]
        return backbone[0]

    @functools.cache
    def run(name: str, strategy: str) -> Run:
        make = trees.TREES[name]
        if make not in roots:
            roots[make] = tmp_path_factory.mktemp(make.__name__)
            make(roots[make])
        results = tmp_path_factory.mktemp("results")
        settings = ("base.epochs=1", "increment.epochs=1")
        protocol = f"{name}_1_1"
        return tiny_run(strategy, roots[make], results, settings, protocol=protocol, preset="quick")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "load_backbone", loaded)
        yield run


@pytest.mark.parametrize(("name", "strategy"), BOTH_KINDS)
def test_two_experiences_of_every_data_set(run_on, name, strategy):
    run = run_on(name, strategy)
    assert run.complete and len(run.experiences) == 2
    assert run.objects == dataset_cards()[name].objects[:2]
    assert run.matrix("image").complete and run.matrix("pixel").complete


def test_aupro_is_not_the_number_of_loco_whose_two_kinds_stand_apart(run_on):
    run = run_on("loco", "patchcore")
    assert set(run.names("pixel")) == {"auroc", "ap", "f1_max"}
    assert {"auroc_logical", "auroc_structural"} < set(run.names("image"))
    assert run.matrix("image", "auroc_logical").complete
    assert verify_run(run.path, Progress(-1)).differences == []


def test_real_iad_has_a_number_for_parts_beside_that_for_images(run_on):
    assert "auroc_sample" in run_on("realiad_views", "patchcore").names("image")
    assert "auroc_sample" not in run_on("realiad", "patchcore").names("image")


def test_noise_in_training_is_recorded(run_on):
    run = run_on("realiad_fuiad_0.1", "patchcore")
    assert run.info["dataset"]["notes"] == ["training lists with noise level 0.1"]
    assert run.info["dataset"]["counts"]["audiojack"] == {"train": 20, "test": 20}
