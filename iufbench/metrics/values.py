"""Definitions of the metrics in ``metrics.csv``, such as ``auroc`` or ``aupro_30``."""

from __future__ import annotations

from functools import partial

from iufbench.metrics.curve import Curve
from iufbench.metrics.definition import Definition
from iufbench.metrics.image import kind_auroc, sample_auroc
from iufbench.metrics.pixel import aupimo_per_image
from iufbench.metrics.thresholds import (
    decisions,
    false_alarms_at_recall,
    recall_at_false_alarms,
    segmentation,
)


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


WHEN = {
    "frozen": "the threshold calibrated right after the object was learnt",
    "own": "the threshold calibrated again after the current experience",
}
"""The two thresholds of an object, both from scores of its calibration images."""
RATES = {
    "recall": ("recall", "share of defective test images with a score above {}", True),
    "false_alarm": ("false alarms", "share of good test images with a score above {}", False),
    "f1": ("F1", "2 TP / (2 TP + FP + FN), an alarm being a score above {}", True),
}
PIXEL_RATES = {
    "seg_f1": ("SegF1", "2 TP / (2 TP + FP + FN)"),
    "iou": ("IoU", "TP / (TP + FP + FN)"),
}


def _at_thresholds() -> list[Definition]:
    """The metrics of runs with ``--threshold``."""
    found = []
    for key, (title, formula, higher) in RATES.items():
        for when, words in WHEN.items():
            if (key, when) != ("f1", "own"):
                name = f"{title} ({'re-calibrated' if when == 'own' else when})"
                text = formula.format(words)
                found.append(Definition(f"{key}_{when}", name, text, "this project", higher, decisions))
    found.append(
        Definition(
            "f1_transferred",
            "F1 (transferred, oracle)",
            "F1 at the threshold that had the best F1 on the test images right after the object was learnt: "
            "an oracle, as choosing it needs the defects",
            "this project",
            True,
            decisions,
        )
    )
    for key, (title, formula) in PIXEL_RATES.items():
        for when, words in WHEN.items():
            name = f"{title} ({'re-calibrated' if when == 'own' else when})"
            text = f"{formula} over the pixels of all test images, marked where the map is above {words}"
            used_by = "this project; MVTec AD 2 reports F1 at a submitted threshold"
            found.append(Definition(f"{key}_{when}", name, text, used_by, True, segmentation))
    return found


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
                f"{kind} AUROC",
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
        Definition(
            "recall_at_fpr_05",
            "recall at 5 % false alarms",
            "highest recall of a threshold with a false-alarm rate of at most 0.05 on the test images",
            "PB5 of Baitieva et al. 2025, with the labels",
            True,
            recall_at_false_alarms,
        ),
        Definition(
            "fpr_at_recall_95",
            "false alarms at 95 % recall",
            "lowest false-alarm rate of a threshold with a recall of at least 0.95 on the test images",
            "FPR95; 1 - PG5 of Baitieva et al. 2025, with the labels",
            False,
            false_alarms_at_recall,
        ),
        *_at_thresholds(),
    )
}


def falls(metric: str) -> bool:
    """Whether lower values of a metric are better (false alarms); False for names without a definition."""
    return metric in DEFINITIONS and not DEFINITIONS[metric].higher_is_better
