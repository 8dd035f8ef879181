"""A static site that ranks many runs."""
