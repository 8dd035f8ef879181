"""The version of this package, and of what it computes."""

__version__ = "0.1.0"
SCORES_VERSION = 1
"""Raised with every change that CHANGELOG.md marks **scores**; results of two versions share no table."""
