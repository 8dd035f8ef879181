"""Avalanche strategies: one method a file, its recipe (YAML card) beside it."""
