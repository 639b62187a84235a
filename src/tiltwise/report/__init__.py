"""Figures and the single-file report, from the numbers the stages recorded."""
