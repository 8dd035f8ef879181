"""``iufbench.score``: evaluates scores of any method like a strategy's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from iufbench.cards.request import Request
from iufbench.engine.api import request_of
from iufbench.engine.external import score_file
from iufbench.reporting.store import Run
from iufbench.support.errors import InputError
from iufbench.support.files import PathOrText
from iufbench.support.progress import Progress

DATA = (
    *("data_root", "synthetic", "data_seed", "train_list", "test_list", "manifest", "card"),
    *("good_names", "max_pixels", "accept_masks", "order", "order_seed"),
)


def score(
    scores: PathOrText,
    protocol: str,
    name: str,
    *,
    maps: PathOrText | None = None,
    masks: PathOrText | None = None,
    seed: int = 0,
    link: str | None = None,
    save_maps: bool = False,
    results: PathOrText = "results",
    quiet: bool = False,
    **data: Any,
) -> Run:
    """Evaluate scores of any method on a protocol, like ``iufbench score``.

    Args:
        scores: CSV file with the columns experience, object, image and score (``iufbench score --template``
            writes one to fill in).
        protocol: Id, alias, or ``<dataset>_<X>_<Y>[x<N>]``, such as ``visa_8_1x4``.
        name: Name of the method.
        maps: Folder of anomaly maps, ``<experience>/<image without suffix>`` with ``.npy``, ``.tiff`` or
            16-bit ``.png``.
        masks: Folder with masks, ``<image without suffix>.png``, for a data set without masks.
        seed: Number of the repetition: repetitions with the same name are averaged.
        link: URL of a paper or of code.
        save_maps: Save the maps for figures (float16, 98 KiB per image).
        results: Results folder.
        quiet: No progress.
        data: The data, as for :func:`run`: ``data_root``, ``synthetic``, ``data_seed``, ``train_list``,
            ``test_list``, ``manifest``, ``card``, ``good_names``, ``max_pixels``, ``accept_masks``,
            ``order``, ``order_seed``.

    Returns:
        The run of kind ``external``, loaded from its directory.

    Raises:
        InputError: The submission or the request is invalid; nothing was written.
    """
    from iufbench.reporting.figures.build import write_run_figures

    request = scoring_request(protocol=protocol, strategy=name, seed=seed, results=results, **data)
    run = score_file(
        request,
        Path(os.path.expanduser(scores)),
        maps=None if maps is None else Path(os.path.expanduser(maps)),
        masks=None if masks is None else Path(os.path.expanduser(masks)),
        link=link,
        save_maps=save_maps,
        progress=Progress(-1 if quiet else 0),
    )
    write_run_figures(run.path)
    return run


def scoring_request(protocol: str, strategy: str, seed: int, results: Any, **data: Any) -> Request:
    """A request of protocol and data only. Raises InputError for unknown or invalid options."""
    for option in data:
        if option not in DATA:
            raise InputError(f"score has no option {option!r} (known: {', '.join(DATA)})")
    defaults = {"synthetic": False, "data_seed": 0, "good_names": ()}
    options: dict[str, Any] = {**defaults, **data}
    return request_of(protocol=protocol, strategy=strategy, seed=seed, results=results, **options)
