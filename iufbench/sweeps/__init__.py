"""Sweeps: grids of strategy x protocol x seed x order, on one machine or on a cluster."""
