"""Caches of decoded images and frozen features, shared by runs."""
