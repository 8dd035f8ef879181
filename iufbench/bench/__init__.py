"""How fast the stages of a run are here: ``iufbench bench``."""

STAGES = ("decode", "backbone", "step", "evaluate", "metrics")
