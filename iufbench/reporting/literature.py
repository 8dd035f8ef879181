"""Published numbers: what papers printed, what was read from their figures, and how sure that is.

The files are data (``results/published``), installed as the package ``iufbench.published``; their
README says where each value comes from.
"""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

import pandas as pd

FROM_FIGURE, SECONDARY = "≈", "*"
CAVEAT = "CAVEAT: "
_SIGNS = {"printed": "", "printed_secondary": SECONDARY, "read_from_figure": FROM_FIGURE}
LATER = "papers after IUF that introduce one object at a time"
_ONE_BY_ONE = {
    "mvtec_1x15 (one class per task)": "mvtec_1_1x14",
    "visa_1x12 (one class per task)": "visa_1_1x11",
}
_FINAL_METRICS = {"AUROC": "auroc", "AP(AUPR)": "ap"}
_SUMMARIES = {"ACC": "acc", "FM": "fm", "LAST": "acc_final"}


@dataclass(frozen=True)
class PublishedValue:
    """One published number in percent. ``sign`` marks how it was obtained (empty: printed in the paper).

    ``caveat`` is what a reader of the number must be told, or empty.
    """

    percent: float
    uncertainty: float
    sign: str
    paper: str
    source: str
    caveat: str = ""


@dataclass(frozen=True)
class Method:
    """A published method, the strategies here that stand for it, and what an ablation row left out."""

    name: str
    title: str
    strategies: tuple[str, ...]
    ablation: str


@dataclass(frozen=True, eq=False)
class Published:
    """``results``, ``curves``, ``methods``, ``one_by_one``: the files below results/published as tables."""

    results: pd.DataFrame
    curves: pd.DataFrame
    methods: pd.DataFrame
    one_by_one: pd.DataFrame

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
        """The methods that later papers compare when objects come one by one, in the order of the file."""
        rows = self.one_by_one[self.one_by_one["protocol"].map(_ONE_BY_ONE.get) == protocol]
        strategies = {m.name: m.strategies for m in self.methods_of()}
        names = dict.fromkeys(rows["method"])
        return [Method(n, n.replace("_", " "), strategies.get(n, ()), "") for n in names]

    def value(
        self, method: str, protocol: str, level: str, summary: str, metric: str = "auroc"
    ) -> PublishedValue | None:
        """A continual ``summary`` (acc, fm, acc_final) of a method; the best kind where there are several.

        What the paper printed goes before copies of it, and those before values read from its figures.
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
                float(row.value_percent), uncertainty, _SIGNS[row.kind], row.paper, row.source, caveat
            )
            values.setdefault(key, found)
        for row in self.one_by_one.itertuples():
            if row.protocol in _ONE_BY_ONE and row.metric in _FINAL_METRICS:
                place = _ONE_BY_ONE[row.protocol]
                key = (row.method, place, row.level, _FINAL_METRICS[row.metric], "acc_final")
                values[key] = PublishedValue(float(row.value_percent), 0.0, SECONDARY, LATER, row.source)
        return values


@lru_cache(maxsize=1)
def published() -> Published:
    """The published numbers that came with iufbench."""
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
    )
