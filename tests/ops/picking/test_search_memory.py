"""Memory of a template search: what is said beforehand is what it holds, and it grows by whole volumes alone."""

import json
import subprocess
import sys

from tiltwise.ops.picking.search_memory import search_bytes

VOXEL, DIAMETER, STEP = 10.0, 100.0, 12.0
SMALL, LARGE = (32, 128, 128), (64, 224, 224)
MEASURED = """
import json, re
from pathlib import Path
import torch
from tiltwise.ops.peaks import local_maxima
from tiltwise.ops.picking import template_search, matching
from tiltwise.ops.picking.tiles import plan_tiles

transfer = matching.TiltTransfer(
    rotations=torch.eye(3)[None], widths=torch.ones(1), amplitude=torch.ones(1, 100), frequency_step=1e-3
)

def search(shape, voxel, diameter, step):
    tomogram = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    levels = [template_search.prepare_level(tomogram, voxel, transfer, diameter, s) for s in (2 * step, step)]
    templates, maps = torch.randn(2, *(levels[0].side,) * 3) / levels[0].side ** 1.5, []
    for _ in range(3):
        tiling = plan_tiles(shape, levels[0].side)
        score, which = matching.correlate_everywhere(levels[0].filtered, [templates], tiling)
        maps.append(template_search.CoarseMap(score=score, which=which, turns=torch.eye(3)[None]))
    local_maxima(score, 1, 40_000)
    # ru_maxrss would hold what the process that started this one held
    return 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])

"""


def test_a_search_holds_no_more_than_it_says():
    """Of tomograms that no level shrinks: tomogram, levels and maps are eleven volumes, as said; the rest of what is
    said is the program and work, which is bounded."""
    sizes = ", ".join(f"search({shape}, {VOXEL}, {DIAMETER}, {STEP})" for shape in (SMALL, LARGE))
    code = MEASURED + f"torch.set_num_threads(1)\nprint(json.dumps([{sizes}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    small, large = json.loads(done.stdout)
    said = [search_bytes(shape, VOXEL, DIAMETER, STEP, 3, 48) for shape in (SMALL, LARGE)]
    assert small <= said[0] and large <= said[1]
    voxels = [shape[0] * shape[1] * shape[2] for shape in (SMALL, LARGE)]
    assert large - small > 0.8 * 4 * 11 * (voxels[1] - voxels[0])


def test_a_full_size_tomogram_is_searched_in_a_stated_amount():
    """1024 × 1024 × 512 voxels of 8 Å, particles of 250 Å in steps of 15°: the tomogram in float32, 2.15 GB, two levels
    of an eighth and a 64th of its voxels, and bounded work; unshrunk, eleven such volumes and half of one of peaks."""
    voxels = 512 * 1024 * 1024
    usual = search_bytes((512, 1024, 1024), 8.0, 250.0, 15.0, 3, 64)
    volumes = 4 * voxels * (1 + 2 / 8 + (2 + 6) / 64)
    assert volumes < usual < volumes + 1.1e9
    unshrunk = search_bytes((512, 1024, 1024), 14.0, 120.0, 10.0, 3, 64)
    assert 11 * 4 * voxels < unshrunk < 11.5 * 4 * voxels + 1.1e9
    assert search_bytes((512, 1024, 1024), 14.0, 120.0, 10.0, 1, 64) == unshrunk - 2 * 8 * voxels
