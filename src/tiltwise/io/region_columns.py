"""The columns of a STAR table that say on which filament, membrane or virion a particle lies.

Ours is tiltwiseRegion: from 0 in each tomogram, -1 for a particle that is its own block. RELION 5 (its source of
October 2025) has two. rlnHelicalTubeID numbers the filaments of a tomogram from 1
(get_particle_poses/filaments.py): a helical refinement keeps each whole when it draws the half sets, and stops at a
number below 1 (exp_model.cpp); no other job looks at it. rlnTomoManifoldIndex numbers surfaces, and the filaments of
its picks, from 0 (sample_manifold.cpp, pick/filaments.py); lists of other programs hold a 1 in every row where they
know of no surface.
"""

from pathlib import Path

import numpy as np

from tiltwise.io.star import Block, integers, row_count

REGION, TUBE, MANIFOLD = "tiltwiseRegion", "rlnHelicalTubeID", "rlnTomoManifoldIndex"


def read_regions(table: Block, path: str | Path) -> np.ndarray:
    """(particle,) tiltwiseRegion; where that is absent rlnHelicalTubeID - 1, else rlnTomoManifoldIndex unless it is 1
    in every row; -1 for numbers below 0, and without any of the three. InputError for what is no whole number."""
    if REGION in table:
        return integers(table, REGION, path)
    if TUBE in table:
        return np.maximum(integers(table, TUBE, path) - 1, -1)
    found = integers(table, MANIFOLD, path) if MANIFOLD in table else np.ones(row_count(table), dtype=np.int64)
    return np.full(len(found), -1) if (found == 1).all() else np.maximum(found, -1)


def region_columns(region: np.ndarray) -> dict[str, np.ndarray]:
    """tiltwiseRegion of regions (particle,), and rlnHelicalTubeID where there is any: one more than the region, and for
    each particle of region -1 a number of its own beyond all others, so that RELION finds none below 1."""
    region = np.asarray(region, dtype=np.int64)
    columns = {REGION: region}
    if (region >= 0).any():
        alone = region < 0
        columns[TUBE] = np.where(alone, region.max() + 1 + np.cumsum(alone), region + 1)
    return columns
