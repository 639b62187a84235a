"""A digital twin of EMPIAR-10164: the immature lattice of HIV-1 under geometry and defoci that another program found.

TS_03 and TS_43 as the shared RELION-5 project has them after polishing: tilt angles, axes, exposure, defocus and hand;
the poses of its refined particles, of the virions with most of them; at every pose a hexamer of CA-SP1 from the model
that was built into that map. These answers ARE the truth put into the simulator (depth of field, damage, ice, counting,
each image on the track of its own movie, a specimen that deforms by 15 Å and beyond); what is then spoiled and measured
stands at the head of polish_case.py. By default two virions of each series, images of 2.7 Å/px cut to 1024 × 1024 px
about them; no membrane. TILTWISE_POLISH_VIRIONS and _SIDE make it larger, _SEED another; TILTWISE_SHARED names the
folder of the data.
"""

from dataclasses import replace

import numpy as np
import torch
from measured_tracks import SHARED
from polish_case import BEYOND, LOCAL, Case, climb_all, imaged, missing, setting, spoil_case
from scipy.spatial.transform import Rotation

from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.io.model import read_atoms
from tiltwise.io.relion import read_particles, read_tilt_series_set
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.interpolate import centred_points, sample_volume
from tiltwise.ops.masks import soft_sphere
from tiltwise.ops.particles.half_sets import spatial_blocks
from tiltwise.ops.symmetry import symmetry_rotations
from tiltwise.params.microscope import MicroscopeParams, MotionParams
from tiltwise.params.polish import PolishParams
from tiltwise.params.presets import MICROSCOPES
from tiltwise.project.store import join
from tiltwise.project.threads import keep_freed_memory
from tiltwise.simulate.disturbances import Disturbances, draw_deformation, draw_warp
from tiltwise.simulate.potential import Scatterer, potential_map, scatterer_from_atoms
from tiltwise.simulate.scene import IceSlab, Population, Scene
from tiltwise.simulate.scene_session import SceneSeries
from tiltwise.workflows.simulation import Truth

RELION = SHARED / "data" / "hiv_empiar10164" / "relion5"
MODEL = SHARED / "data" / "models" / "ca_sp1_from_empiar10164.cif"
SYMMETRY = "C6"
PIXEL, BOX, DIAMETER, RADIUS = 2.7, 96, 150.0, 65.0
"""Å, px, Å, Å: of the sphere that is compared, within which the lattice is the same for all particles."""
SIDE, VIRIONS = setting("SIDE", 1024), setting("VIRIONS", 2)
HEXAMER = ("Af", "Ag", "Ah", "Ai", "Ak", "Al")
"""The chains of the model that are near complete; they lie about the six-fold axis, which is the particles' z."""
_THICKNESS = 1400.0  # Å of ice
_AVERAGED = 60  # particles, whose neighbours make the surroundings in the truth
_LINK = 110.0  # Å: neighbours in the lattice, 75 Å apart, hang together, virions do not


def make(seed: int) -> Case:
    keep_freed_memory()
    return spoil_case(make_truth(seed), seed)


def make_truth(seed: int) -> Truth:
    """Both series imaged, and all that was put into them."""
    scatterer = hexamer()
    everyone = read_particles(RELION / "Refine3D" / "job074" / "run_data.star")
    sets = RELION / "Polish" / "job070" / "tomograms.star"
    blank = {name: np.zeros((count, 8, 8), np.int16) for name, count in (("TS_03", 40), ("TS_43", 41))}
    made, parts = {}, []
    for number, (name, found) in enumerate(read_tilt_series_set(sets, root=RELION, images=blank).items()):
        series, particles = cut_out(found, everyone[everyone.tilt_series == name])
        rng = np.random.default_rng([seed, 9, number])
        made[name] = imaged(in_ice(series, particles, scatterer, rng, seed), name, seed)
        parts.append(particles)
    particles = joined(parts)
    density = lattice_map(symmetric_map(scatterer), particles, seed)
    return Truth(
        tilt_series=made,
        particles=particles,
        map=density,
        mask=Volume(data=soft_sphere((BOX,) * 3, RADIUS / PIXEL, 6.0).numpy(), voxel_size=PIXEL),
        particle_diameter=DIAMETER,
        reference_lowpass=40.0,
        symmetry=SYMMETRY,
    )


def hexamer() -> Scatterer:
    """Six chains, centred on their common axis."""
    atoms = read_atoms(MODEL, chains=HEXAMER)
    return scatterer_from_atoms(replace(atoms, position=atoms.position - atoms.position.mean(axis=0)))


def symmetric_map(scatterer: Scatterer) -> Volume:
    """The mean over turns of the group: chains of the model lack different residues, which an average in C6 evens
    out."""
    turned = (replace(scatterer, position=scatterer.position @ turn.T) for turn in symmetry_rotations(SYMMETRY).numpy())
    data = np.mean([potential_map(one, PIXEL, BOX).data for one in turned], axis=0)
    return Volume(data=data.astype(np.float32), voxel_size=PIXEL)


def lattice_map(hexamer_map: Volume, particles: Particles, seed: int) -> Volume:
    """What a perfect average shows: the hexamer, and its neighbours as they lie about a particle on average, in C6."""
    rng, data = np.random.default_rng(seed), torch.as_tensor(np.array(hexamer_map.data, np.float32))
    grid = centred_points((BOX,) * 3).double()
    near = grid.norm(dim=-1) < (RADIUS + 20.0) / PIXEL
    around = torch.zeros(int(near.sum()), dtype=torch.float64)
    chosen = rng.permutation(len(particles))[:_AVERAGED]
    for p in chosen:
        own = np.flatnonzero(particles.tilt_series == particles.tilt_series[p])
        apart = np.linalg.norm(particles.position[own] - particles.position[p], axis=1)
        turn = (particles.rotation[p] * Rotation.from_euler("z", 60.0 * rng.integers(6), degrees=True)).inv()
        for q in own[(apart > 1) & (apart < RADIUS + 80)]:
            place = turn.apply(particles.position[q] - particles.position[p]) / PIXEL
            back = torch.as_tensor((turn * particles.rotation[q]).as_matrix())  # x = place + back · (point of hexamer)
            around += sample_volume(data, (grid[near] - torch.as_tensor(place)) @ back, method="cubic").double()
    whole = data.double()
    whole[near] += around / len(chosen)
    return Volume(data=whole.float().numpy(), voxel_size=PIXEL)


def cut_out(series: TiltSeries, particles: Particles) -> tuple[TiltSeries, Particles]:
    """The virions with most particles near each other, and the series as images about them would have it."""
    block = spatial_blocks(replace(particles, region=np.full(len(particles), -1)), _LINK)
    sizes = np.bincount(block)
    middles = np.array([particles.position[block == b].mean(axis=0) for b in range(len(sizes))])
    first = int(sizes.argmax())
    near = np.argsort(np.linalg.norm(middles - middles[first], axis=1) + 1e6 * (sizes < 0.4 * sizes[first]))
    chosen = np.isin(block, near[:VIRIONS])
    own = particles[chosen]
    centre = (own.position.max(axis=0) + own.position.min(axis=0)) / 2
    geometry = replace(series.geometry, shift=np.zeros((series.number, 2)))  # images are cut about the virions
    ours = replace(own, position=own.position - centre, region=block[chosen])
    depth = tilt_rotations(series.geometry).numpy()[:, 2] @ centre
    change = (series.defocus_handedness or 0) * depth
    ctf = replace(series.ctf, defocus_u=series.ctf.defocus_u + change, defocus_v=series.ctf.defocus_v + change)
    images = np.zeros((series.number, SIDE, SIDE), np.int16)
    return replace(series, geometry=geometry, ctf=ctf, images=images, pixel_size=PIXEL), ours


def in_ice(
    series: TiltSeries, particles: Particles, scatterer: Scatterer, rng: np.random.Generator, seed: int
) -> SceneSeries:
    """The particles in ice as the series is to see them, which deforms meanwhile."""
    motion = MotionParams(deformation=15.0, local=LOCAL, **BEYOND)
    preset: MicroscopeParams = MICROSCOPES["hiv-lattice"]
    camera = preset.camera.model_copy(update={"image_size": SIDE, "pixel_size": PIXEL})
    microscope = preset.model_copy(update={"camera": camera, "motion": motion})
    deformation = draw_deformation(motion, series, rng)
    target = Population(
        name="target",
        scatterer=scatterer,
        position=particles.position,
        rotation=particles.rotation,
        half_extent=float(np.linalg.norm(scatterer.position, axis=1).max()),
    )
    scene = Scene(
        populations=(target,), ice=IceSlab(thickness=_THICKNESS, incline=(0.0, 0.0), curvature=0.0), film=None
    )
    numbers = (seed, 11, int(rng.integers(1 << 30)))
    disturbed = Disturbances(deformation=deformation, warp=draw_warp(motion, series, rng))
    return SceneSeries(scene=scene, series=series, disturbances=disturbed, params=microscope, seed=numbers)


def joined(parts: list[Particles]) -> Particles:
    """Particles of both series in a row, without half sets."""
    whole = join("particles", {str(n): part for n, part in enumerate(parts)})
    return replace(whole, half_set=np.zeros(len(whole), dtype=int))


def run() -> dict:
    params = PolishParams(box_size=BOX, particle_diameter=DIAMETER, symmetry=SYMMETRY)
    return climb_all(make, lambda case: params, missing(RELION, MODEL))
