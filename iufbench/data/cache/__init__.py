"""Decoded images and frozen features, kept between runs."""
