"""One run: from a request to a plan, its parts, the loop over experiences, checkpoints and resume."""
