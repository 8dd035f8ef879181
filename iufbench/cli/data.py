"""``iufbench data``: generate, download, check, preview and cache data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from iufbench.cli.cache import cache
from iufbench.cli.download import download
from iufbench.cli.echo import echo
from iufbench.cli.options import FOLDER, PROCESSES, SEED, json_option, list_options, reading_options
from iufbench.support.errors import InputError
from iufbench.support.files import json_text


@click.group()
def data() -> None:
    """Generate, download, check, preview and cache data sets."""


@data.command()
@click.argument("folder", type=FOLDER)
@click.option("--dataset", default="visa", show_default=True, help="visa or mvtec: names and layout.")
@click.option("--objects", help="Only these: a,b,c.")
@click.option("--train", "n_train", type=click.IntRange(1), default=40, show_default=True)
@click.option("--good", "n_good", type=click.IntRange(1), default=15, show_default=True)
@click.option("--defective", "n_defective", type=click.IntRange(1), default=24, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--workers", type=PROCESSES, help="Processes [default: one per core].")
@click.option("-q", "--quiet", is_flag=True)
def make(folder: Path, dataset: str, objects: str | None, quiet: bool, **counts: Any) -> None:
    """Generate a synthetic data set in FOLDER, which must be empty or not exist.

    \b
    iufbench data make /tmp/visa-synthetic --dataset visa
    iufbench run --protocol visa_8_1x4 --strategy iuf --data-root /tmp/visa-synthetic
    """
    from iufbench.data.synthetic import make as make_synthetic
    from iufbench.engine.plan import split_names

    images = make_synthetic(
        folder, dataset=dataset, objects=split_names(objects), progress=not quiet, **counts
    )
    echo(f"{images} synthetic images in {folder}")


@data.command()
@click.argument("folder", type=FOLDER)
@click.option("--dataset", required=True, help="The expected data set (visa, mvtec, or a name of your own).")
@click.option("--objects", help="Only these objects, for a folder with part of the data set: a,b,c.")
@reading_options
@list_options
@click.option("--workers", type=PROCESSES, help="Processes [default: one per core].")
@json_option
def check(
    folder: Path,
    dataset: str,
    objects: str | None,
    card: Path | None,
    good_names: tuple[str, ...],
    max_pixels: int | None,
    accept_masks: bool,
    train_list: Path | None,
    test_list: Path | None,
    manifest: Path | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Verify a folder: counts, every image and mask, duplicates. Exit code 1 if there are problems.

    \b
    iufbench data check ~/data/visa --dataset visa
    iufbench data check ~/data/part-of-mvtec --dataset mvtec --objects bottle,pill
    iufbench data check ~/data --dataset ten-sets --manifest ~/data/meta.json
    """
    from iufbench.cards.request import lists_of
    from iufbench.data.check import check_folder
    from iufbench.engine.plan import split_names

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the data set's root folder")
    names = split_names(objects)
    lists = lists_of(train_list, test_list, manifest)
    report = check_folder(
        folder, dataset, workers, not as_json, names, card, good_names, max_pixels, accept_masks, lists
    )
    echo(json_text(report.as_dict()) if as_json else report.as_text())
    if report.errors:
        raise SystemExit(1)


@data.command()
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dataset", default="visa", show_default=True, help="visa or mvtec.")
@click.option("--objects", help="Only these: a,b,c.")
@click.option("--seed", type=SEED, default=0, show_default=True)
def preview(picture: Path, dataset: str, objects: str | None, seed: int) -> None:
    """Write a contact sheet of the synthetic objects and their defects to PICTURE (a .png file)."""
    from iufbench.data.synthetic import preview as draw
    from iufbench.engine.plan import split_names

    if picture.suffix.lower() != ".png":
        raise InputError(f"{picture}: the contact sheet is a PNG image; use a file name that ends in .png")
    draw(picture, dataset=dataset, objects=split_names(objects), seed=seed)
    echo(str(picture))


data.add_command(download)
data.add_command(cache)
