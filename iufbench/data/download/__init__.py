"""Official archives: fetched, verified, unpacked."""
