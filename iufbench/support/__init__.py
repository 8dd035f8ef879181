"""Shared by all other packages: errors, files, fields, progress, seeds, devices, memory."""
