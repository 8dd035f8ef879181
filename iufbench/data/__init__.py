"""Folders on disk become samples: readers, image loading, synthetic data and checks."""
