"""Protocols on data sets as Avalanche streams."""
