"""Specimen and microscope with known truth."""
