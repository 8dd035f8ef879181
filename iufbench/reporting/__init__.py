"""Reads run directories; builds tables, figures, reports and comparisons. Without torch and Avalanche."""
