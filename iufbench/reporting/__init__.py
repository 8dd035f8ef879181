"""Run directories in; tables, figures, reports and comparisons out. No torch, no Avalanche."""
