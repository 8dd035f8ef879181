"""The version of this package, and of the scores that it computes."""

__version__ = "0.1.0"
SCORES_VERSION = 1
"""Incremented by every change that CHANGELOG.md marks **scores**; tables never mix two versions."""
