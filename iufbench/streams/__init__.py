"""Avalanche streams built from a protocol and a data set."""
