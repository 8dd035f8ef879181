"""Avalanche metric plugins and the exact evaluation of one object at a time."""
