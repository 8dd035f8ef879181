"""Measures the speed of the stages of a run: ``iufbench bench``."""

STAGES = ("decode", "backbone", "step", "evaluate", "metrics")
