"""Pages of the documentation that are generated from cards and definitions when the site is built."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from iufbench.cards.datasets import dataset_cards
from iufbench.cards.protocols import protocol_cards
from iufbench.cards.registry import card_paths
from iufbench.cards.strategies import load_strategy
from iufbench.metrics import drift, summaries, values
from iufbench.metrics.aggregate import AGGREGATES
from iufbench.metrics.definition import Definition


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to those on disk (an event of mkdocs)."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; ``|`` in cells is escaped."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def anchor(name: str) -> str:
    """The id of a heading: some renderers drop dots."""
    return name.replace(".", "-")


def strategies() -> str:
    """Every registered strategy, with the provenance of the numbers on its card."""
    cards = {name: load_strategy(name) for name in card_paths("strategy")}
    rows = [(f"[`{n}`](#{n})", c.title, c.content.get("description", "")) for n, c in cards.items()]
    parts = [
        "# Strategies",
        "One module and one card (YAML) each. `iufbench show strategy NAME` prints a card as resolved; "
        "`iufbench run --set key=value` changes a key.",
        table(("name", "title", "description"), rows),
    ]
    for name, card in cards.items():
        own = {k: v for k, v in card.content.get("provenance", {}).items() if not k.startswith("_")}
        parts += [f"## {name}", f"**{card.title}.** {card.content.get('description', '')}"]
        parts.append(f"Learner: `{card.content.get('learner', '')}`.")
        if own:
            parts.append(table(("key", "source of the value"), own.items()))
    return "\n\n".join(parts) + "\n"


def protocols() -> str:
    """Every protocol card with its objects per experience."""
    cards = protocol_cards().values()
    rows = [
        (f"`{p.id}`", p.title, " + ".join(str(len(e)) for e in p.experiences), ", ".join(p.aliases))
        for p in cards
    ]
    parts = [
        "# Protocols",
        "A protocol defines which objects arrive when. Any other protocol works without a card: "
        "`<dataset>_<X>_<Y>[x<N>]` is X base objects, then N experiences of Y objects each "
        "(`mvtec_1_1x14`, `visa_2_2x5`). `--order a,b,c` and `--order-seed K` change the order of objects "
        "and become part of the id.",
        table(("id", "published name", "objects per experience", "aliases"), rows),
    ]
    for p in cards:
        objects = (", ".join(f"`{o}`" for o in e) for e in p.experiences)
        parts += [f"## {p.id}", f"{p.title}. Source: {p.source or 'this project'}."]
        parts.append(table(("experience", "objects"), enumerate(objects)))
    return "\n\n".join(parts) + "\n"


def datasets() -> str:
    """Every data set card: objects, counts, licence, source."""
    parts = [
        "# Data sets",
        "`--data-root DIR` is the location of a data set; with `IUFBENCH_DATA=DIR` it is `DIR/<name>`. "
        "`iufbench data check DIR --dataset NAME` compares a folder with the counts below, "
        "`iufbench data download NAME DIR` downloads those with a stable URL.",
    ]
    cards = dataset_cards().values()
    rows = [
        (
            f"[`{c.name}`](#{anchor(c.name)})",
            c.title,
            len(c.objects),
            f"`{c.layout}`",
            c.licence or "not known",
        )
        for c in cards
    ]
    parts.append(table(("name", "title", "objects", "layout", "licence"), rows))
    for c in cards:
        parts += [
            f"## {c.name} {{ #{anchor(c.name)} }}",
            f"**{c.title}.** {c.source} Home: {c.home or 'not known'}.",
        ]
        parts.append("Objects, in order: " + ", ".join(f"`{o}`" for o in c.objects) + ".")
    return "\n\n".join(parts) + "\n"


def metrics() -> str:
    """Every definition that ``iufbench explain`` knows."""

    def rows(definitions: Iterable[Definition]) -> list[tuple[str, ...]]:
        return [
            (f"`{d.name}`", d.title, d.formula, d.used_by, "higher" if d.higher_is_better else "lower")
            for d in definitions
        ]

    columns = ("name", "title", "definition", "used by", "better")
    return (
        "\n\n".join(
            [
                "# Metrics",
                "R[t, o] is a metric of object o after experience t; c_t is the mean of row t over the "
                "objects seen so far. The literature gives one name to several quantities, so each has a "
                "separate name here and is never mixed with another in one column. "
                "`iufbench explain NAME [RUN]` prints a definition and, for a run, the steps to its number.",
                "## For one object after one experience",
                "An AUROC below 0.5 is not flipped. Image labels come from the list of files, never from "
                "scores; maps and masks are compared at 224x224.",
                table(columns, rows(values.DEFINITIONS.values())),
                "## For a whole run",
                table(columns, rows(summaries.DEFINITIONS.values())),
                "## For a run with thresholds",
                table(columns, rows(drift.DEFINITIONS.values())),
                "## Of several runs",
                "Over seeds and objects, in the tables `aggregates_*`, the report and the [board](board.md).",
                table(columns, rows(AGGREGATES.values())),
            ]
        )
        + "\n"
    )


PAGES: dict[str, Callable[[], str]] = {
    "strategies.md": strategies,
    "protocols.md": protocols,
    "datasets.md": datasets,
    "metrics.md": metrics,
}
