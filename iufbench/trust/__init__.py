"""Whether a number can be trusted: verify, rerun, evaluate again, repeat."""
