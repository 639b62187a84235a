"""RELION-5 STAR sets: tilt series, tomograms, particles and the optimisation set that names them."""

from tiltwise.io.relion.particles import (
    StackFiles,
    read_optimisation_set,
    read_particles,
    write_optimisation_set,
    write_particles,
)
from tiltwise.io.relion.tilt_series import (
    TomogramFile,
    read_tilt_series,
    read_tilt_series_set,
    write_tilt_series,
    write_tilt_series_set,
)

__all__ = [
    "StackFiles",
    "TomogramFile",
    "read_optimisation_set",
    "read_particles",
    "read_tilt_series",
    "read_tilt_series_set",
    "write_optimisation_set",
    "write_particles",
    "write_tilt_series",
    "write_tilt_series_set",
]
