"""Readers, one module per folder layout or list format: files on disk to samples."""
