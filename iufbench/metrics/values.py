"""Definitions of the metrics in ``metrics.csv``, such as ``auroc`` or ``aupro_30``."""

from __future__ import annotations

from functools import partial

from iufbench.metrics.curve import Curve
from iufbench.metrics.definition import Definition
from iufbench.metrics.image import kind_auroc, sample_auroc
from iufbench.metrics.pixel import aupimo_per_image


def _aupro(limit: float, used_by: str) -> Definition:
    return Definition(
        name=f"aupro_{round(100 * limit):02d}",
        title=f"AUPRO@{limit:g}",
        formula=f"(1/L) * integral from 0 to L = {limit:g} of PRO(FPR) dFPR, PRO = mean share of each "
        "8-connected region that is hit, FPR over all normal pixels, all distinct thresholds",
        used_by=used_by,
        higher_is_better=True,
        function=partial(Curve.aupro, limit=limit),
    )


DEFINITIONS: dict[str, Definition] = {
    d.name: d
    for d in (
        Definition(
            "auroc",
            "AUROC",
            "share of (anomalous, normal) pairs in the right order, ties counting half, no flip below 0.5",
            "all; scikit-learn roc_auc_score",
            True,
            Curve.auroc,
        ),
        Definition(
            "ap",
            "AP",
            "sum over distinct thresholds k of (R_k - R_(k-1)) * P_k, without interpolation",
            "scikit-learn average_precision_score",
            True,
            Curve.ap,
        ),
        Definition(
            "f1_max",
            "F1-max",
            "max over all distinct thresholds of 2 TP / (2 TP + FP + FN)",
            "VisA, anomalib",
            True,
            Curve.f1_max,
        ),
        Definition(
            "auroc_sample",
            "sample AUROC",
            "AUROC over physical parts: the highest score of a part's images, defective if any of them is",
            "Real-IAD (five views)",
            True,
            sample_auroc,
        ),
        *(
            Definition(
                f"auroc_{kind}",
                f"AUROC {kind}",
                f"image AUROC of the {kind} anomalies against all normal images",
                "MVTec LOCO AD",
                True,
                kind_auroc,
            )
            for kind in ("logical", "structural")
        ),
        _aupro(0.3, "MVTec AD (IJCV 2021)"),
        _aupro(0.05, "MVTec AD 2"),
        Definition(
            "aupimo",
            "AUPIMO",
            "mean over anomalous images of the image's TPR averaged over ln FPR from 1e-5 to 1e-4, "
            "FPR on images without defects only",
            "Bertoldo et al., BMVC 2024; anomalib",
            True,
            aupimo_per_image,
        ),
    )
}
