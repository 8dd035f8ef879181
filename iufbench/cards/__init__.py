"""Protocol, strategy and data set cards (YAML), and the registry that finds them by name."""
