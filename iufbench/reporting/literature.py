"""Published numbers: printed in papers or read from their figures, and how reliable they are.

The files are data (``results/published``), installed as the package ``iufbench.published``; their README
states the source of each value.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd

FROM_FIGURE, SECONDARY, REPRODUCED = "≈", "*", "‡"
CAVEAT = "CAVEAT: "
_SIGNS = {
    "printed": "",
    "printed_secondary": SECONDARY,
    "read_from_figure": FROM_FIGURE,
    "reproduced_by_third_party": REPRODUCED,
}
LATER = "papers after IUF that introduce one object at a time"
_ONE_BY_ONE = {
    "mvtec_1x15 (one class per task)": "mvtec_1_1x14",
    "visa_1x12 (one class per task)": "visa_1_1x11",
}
# Joint training on all objects is the reference for the end of a stream of single objects.
_JOINT = {"mvtec_joint": "mvtec_1_1x14", "visa_joint": "visa_1_1x11"}
_FINAL_METRICS = {"AUROC": "auroc", "AP(AUPR)": "ap", "AP": "ap"}
_SUMMARIES = {"ACC": "acc", "FM": "fm", "LAST": "acc_final"}


@dataclass(frozen=True)
class PublishedValue:
    """One published number in percent. ``sign`` marks how it was obtained (empty: printed in the paper).

    ``caveat`` is a remark for the reader, or empty; ``setup`` describes image score, backbone, and selection
    on test images.
    """

    percent: float
    uncertainty: float
    sign: str
    paper: str
    source: str
    caveat: str = ""
    setup: str = ""


@dataclass(frozen=True)
class Method:
    """A published method, the strategies here that correspond to it, and the component that an ablation row
    omits.
    """

    name: str
    title: str
    strategies: tuple[str, ...]
    ablation: str


@dataclass(frozen=True, eq=False)
class Published:
    """The files in results/published as tables."""

    results: pd.DataFrame
    curves: pd.DataFrame
    methods: pd.DataFrame
    one_by_one: pd.DataFrame
    later: pd.DataFrame
    setups: pd.DataFrame

    @cached_property
    def protocols(self) -> dict[str, tuple[str, str]]:
        """Protocol id -> (data set title, the paper's name of the protocol), in the order of its tables."""
        panels = self.curves.drop_duplicates("protocol").set_index("protocol")
        titles = {p: re.sub(r"^\(.*?\)\s*", "", row["panel"]) for p, row in panels.iterrows()}
        rows = self.results.drop_duplicates("protocol").itertuples()
        return {row.protocol: (row.dataset, titles[row.protocol]) for row in rows}

    def methods_of(self, ablation: bool = False) -> list[Method]:
        """The methods of the main tables, or the rows of the ablation table, in the paper's order."""
        rows = self.methods[(self.methods["ablation"] != "") == ablation]
        found = []
        for name, group in rows.groupby("method", sort=False):
            strategies = tuple(s for s in group["strategy"] if s)
            found.append(Method(str(name), group["title"].iloc[0], strategies, group["ablation"].iloc[0]))
        return found

    def one_by_one_methods(self, protocol: str) -> list[Method]:
        """The methods that later papers compare on streams of single objects, in the order of the file."""
        rows = self.one_by_one[self.one_by_one["protocol"].map(_ONE_BY_ONE.get) == protocol]
        strategies = {m.name: m.strategies for m in self.methods_of()}
        titles = {}
        for row in self.setups.itertuples():
            titles[row.method] = row.title
            strategies.setdefault(row.method, tuple(row.strategies.split()))
        later = [method for place, method, _ in self._shown_later() if place == protocol]
        names = dict.fromkeys([*rows["method"], *later])
        return [Method(n, titles.get(n) or n.replace("_", " "), strategies.get(n, ()), "") for n in names]

    def _shown_later(self) -> list[tuple[str, str, Any]]:
        """(protocol here, method, row) of every later value that appears in a table."""
        found = []
        for row in self.later.itertuples():
            place = _ONE_BY_ONE.get(row.protocol) or _JOINT.get(row.protocol)
            if place and row.metric in _FINAL_METRICS and not row.confidence.startswith("weak"):
                found.append((place, f"{row.method} (joint)" if row.protocol in _JOINT else row.method, row))
        return found

    def setup(self, method: str) -> str:
        """How a method's published values were obtained, as one phrase; empty if unknown."""
        row = self._setups.get(method)
        if row is None:
            return ""
        more = f" ({row.source})" if row.source else ""
        return f"{row.title or method}: {row.backbone}; {row.image_score}; selection: {row.selection}{more}"

    @cached_property
    def _setups(self) -> dict[str, Any]:
        rows = self.setups.drop_duplicates("method")
        return {row.method: row for row in rows.itertuples()}

    def value(
        self, method: str, protocol: str, level: str, summary: str, metric: str = "auroc"
    ) -> PublishedValue | None:
        """A continual ``summary`` (acc, fm, acc_final) of a method.

        Values printed in the paper take precedence over copies of them, and those over values read from its
        figures.
        """
        return self._values.get((method, protocol, level, metric, summary))

    @cached_property
    def _values(self) -> dict[tuple[str, str, str, str, str], PublishedValue]:
        values: dict[tuple[str, str, str, str, str], PublishedValue] = {}
        kinds = list(_SIGNS)
        rows = self.results[self.results["metric"].isin(list(_SUMMARIES))]
        for row in sorted(rows.itertuples(), key=lambda row: kinds.index(row.kind)):
            key = (row.method, row.protocol, row.level, "auroc", _SUMMARIES[row.metric])
            uncertainty = 0.0 if pd.isna(row.uncertainty_pm) else float(row.uncertainty_pm)
            note = "" if pd.isna(row.note) else str(row.note)
            caveat = note.removeprefix(CAVEAT) if note.startswith(CAVEAT) else ""
            found = PublishedValue(
                float(row.value_percent),
                uncertainty,
                _SIGNS[row.kind],
                row.paper,
                row.source,
                caveat,
                self.setup(row.method),
            )
            values.setdefault(key, found)
        for row in self.one_by_one.itertuples():
            if row.protocol in _ONE_BY_ONE and row.metric in _FINAL_METRICS:
                place = _ONE_BY_ONE[row.protocol]
                key = (row.method, place, row.level, _FINAL_METRICS[row.metric], "acc_final")
                percent, setup = float(row.value_percent), self.setup(row.method)
                values[key] = PublishedValue(percent, 0.0, SECONDARY, LATER, row.source, setup=setup)
        for place, method, row in self._shown_later():
            key = (method, place, row.level, _FINAL_METRICS[row.metric], "acc_final")
            percent, sign = float(row.value_percent), _SIGNS[row.kind]
            values[key] = PublishedValue(percent, 0.0, sign, row.paper, row.source, setup=self.setup(method))
        return values


def source_lines(values: Sequence[PublishedValue]) -> list[str]:
    """Where the published values of a table come from, how they were obtained, and the meaning of their
    marks.
    """
    if not values:
        return []
    lines = ["Published: " + "; ".join(sorted({v.paper for v in values}))]
    setups = list(dict.fromkeys(v.setup for v in values if v.setup))
    if setups:
        lines.append(
            "Backbone, image score and selection on test images, as far as known. " + ". ".join(setups)
        )
    read = [v.uncertainty for v in values if v.sign == FROM_FIGURE]
    if read:
        lines.append(
            f"{FROM_FIGURE} read from the paper's figures (imgs/q1.png and imgs/q2.png of jqtangust/IUF), "
            f"reading error {min(read):.2f} to {max(read):.2f} percentage points"
        )
    for sign, words in ((SECONDARY, "copied from a secondary source"), (REPRODUCED, "reproduced by others")):
        if any(v.sign == sign for v in values):
            texts = sorted({v.source for v in values if v.sign == sign})
            lines.append(f"{sign} {words}: {'; '.join(texts)}")
    return lines


@lru_cache(maxsize=1)
def published() -> Published:
    """The published numbers that are part of iufbench."""
    folder = importlib.resources.files("iufbench.published")

    def read(name: str) -> pd.DataFrame:
        with (folder / name).open("r", encoding="utf-8") as file:
            return pd.read_csv(file)

    methods = read("published_methods.csv").fillna("")
    return Published(
        results=read("published_results.csv"),
        curves=read("published_curves.csv"),
        methods=methods,
        one_by_one=read("published_results_one_by_one.csv"),
        later=read("published_later.csv"),
        setups=read("published_setups.csv").fillna(""),
    )
