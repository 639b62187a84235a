"""How well an atomic model explains a project's map: a Fourier shell correlation that owes nothing to the half maps.

The model's potential is brought onto the map by one rigid motion: from where the file puts it if it fits there, else
from a search of all rotations and shifts. C_ref = sqrt(2 FSC / (1 + FSC)) of the half maps is what the map's
correlation with a perfect model can reach (Rosenthal & Henderson 2003, eq. 19); a model far below it does not explain
what the halves agree on, and one above it was fitted to the noise. The mirror image is fitted alike: a map of the wrong
hand prefers it.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tiltwise.data.atoms import Atoms
from tiltwise.data.errors import InputError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.volume import Volume
from tiltwise.io.model import read_molecule
from tiltwise.ops.filters import low_pass
from tiltwise.ops.fsc import first_crossing, fourier_shell_correlation
from tiltwise.ops.maps.fsc_precision import crossing_with_range
from tiltwise.ops.maps.global_superpose import search_motions
from tiltwise.ops.maps.masked_fsc import MaskedFsc, measure_masked_fsc, reference_correlation
from tiltwise.ops.maps.superpose import RigidMotion, move_map, superpose
from tiltwise.ops.masks import soft_mask_from_map
from tiltwise.ops.symmetry import symmetry_order
from tiltwise.project import store
from tiltwise.project.commit import write_file
from tiltwise.project.layout import check_project
from tiltwise.project.records import to_json
from tiltwise.project.state import ProjectState
from tiltwise.report.drawing import save_png
from tiltwise.report.model_fit import draw_model_fit
from tiltwise.simulate.potential import potential_map, scatterer_from_atoms
from tiltwise.workflows.map_scores import merged_map

FIGURES, DRAWING = "model-fsc.json", "model-fsc.png"
MODEL_THRESHOLD = 0.5
_TRIED = 4
"""Places of the search that are refined."""
_DECIDES = 12.0
"""Å: a fit from the file's place that does not reach twice this, nor twice what the halves promise, is no fit."""
_MASK_SPACING, _MASK_EDGE = 15.0, 20.0
"""Low-pass of the model for a mask of its own, and the mask's edge, Å."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFit:
    """A model against a map."""

    resolution: float
    """Å at which the FSC of map and model, within the project's mask, first falls below 0.5."""
    resolution_own_mask: float
    """The same within a mask about the model: of the part of the map that the model is of."""
    resolution_expected: float
    """Å at which C_ref of the half maps, within the project's mask, falls below 0.5: what a perfect model reaches."""
    resolution_mirrored: float
    """`resolution` of the model's mirror image."""
    overlap: float
    """Part of the model's density that lies within the project's mask."""
    rotation_angle: float
    """Degrees by which the model was turned from its place in the file."""
    shift: float
    """Å by which its centre was moved."""
    searched: bool
    """Whether all rotations and shifts were searched, because the model did not fit where its file puts it."""
    frequency: tuple[float, ...]
    """(shell,) 1/Å."""
    fsc_model: tuple[float, ...]
    """(shell,) FSC of map and model within the project's mask."""
    fsc_own_mask: tuple[float, ...]
    """(shell,) FSC of map and model within a mask about the model."""
    fsc_expected: tuple[float, ...]
    """(shell,) C_ref."""
    notes: tuple[str, ...]
    """In plain words, what stands out."""


def fit_model(project: Path, model: Path, *, progress: Progress = no_progress) -> tuple[ModelFit, list[Path]]:
    """Measure a PDB or mmCIF model against the map of a project; gives the figures and the files that were written.

    Writes model-fsc.json and model-fsc.png into the project. InputError where there is no map, or the model cannot be
    read or does not fit into its box.
    """
    folder = check_project(project)
    halves, mask = _read_maps(ProjectState(folder))
    found = measure_model(halves, mask, read_molecule(model), progress)
    write_file(folder / FIGURES, json.dumps(to_json(asdict(found)), indent=1) + "\n")
    curves = found.fsc_model, found.fsc_own_mask, found.fsc_expected
    save_png(draw_model_fit(found.frequency, *curves), folder / DRAWING)
    return found, [folder / FIGURES, folder / DRAWING]


def measure_model(halves: HalfMaps, mask: torch.Tensor, atoms: Atoms, progress: Progress = no_progress) -> ModelFit:
    """The figures of a model against the mean of two half maps, whose voxel (0, 0, 0) is the origin of coordinates."""
    first, second = (torch.as_tensor(np.array(v.data, dtype=np.float32)) for v in (halves.half1, halves.half2))
    target = merged_map(halves)
    density, placed = _model_density(atoms, target)
    mirrored, _ = _model_density(_mirrored(atoms), target)
    curves = measure_masked_fsc(first, second, mask, target.voxel_size, seed=0, order=symmetry_order(halves.symmetry))
    expected = reference_correlation(curves.corrected)
    promised = _crossing(curves, expected)
    progress(0.05, "fitting the model")
    motion, fsc = _best_fit(density, target, mask, [placed])
    searched = _crossing(curves, fsc) > 2 * max(promised, _DECIDES)
    if searched:
        starts = search_motions(*_cubes(density, target, mask), _TRIED, _part(progress, 0.1))
        motion, fsc = _best_fit(density, target, mask, starts)
    other = search_motions(*_cubes(mirrored, target, mask), _TRIED, _part(progress, 0.55))
    _, fsc_mirrored = _best_fit(mirrored, target, mask, other)
    moved = move_map(density, motion, target)
    overlap = _overlap(moved, mask)
    reached, mirrored_to = (_crossing(curves, c) for c in (fsc, fsc_mirrored))
    fsc_own = _within_own_mask(moved, target)
    own = first_crossing(curves.frequency, fsc_own, MODEL_THRESHOLD)
    change = motion.after(placed.inverse())
    progress(1.0, "model measured")
    return ModelFit(
        resolution=reached,
        resolution_own_mask=own,
        resolution_expected=promised,
        resolution_mirrored=mirrored_to,
        overlap=overlap,
        rotation_angle=math.degrees(math.acos(min(1.0, max(-1.0, (np.trace(change.rotation) - 1) / 2)))),
        shift=float(np.linalg.norm(motion.shift - placed.shift)),
        searched=searched,
        frequency=tuple(curves.frequency.tolist()),
        fsc_model=tuple(fsc.tolist()),
        fsc_own_mask=tuple(fsc_own.tolist()),
        fsc_expected=tuple(expected.tolist()),
        notes=tuple(_notes((reached, promised, mirrored_to), own, overlap)),
    )


def _crossing(curves: MaskedFsc, curve: torch.Tensor) -> float:
    """Å at which a curve within the project's mask falls below 0.5, averaged as the FSC of the halves is."""
    return crossing_with_range(curves.frequency, curve, curves.values, MODEL_THRESHOLD)[0]


def _model_density(atoms: Atoms, like: Volume) -> tuple[Volume, RigidMotion]:
    """The model's potential about the middle of the map's box, and the motion to where its file puts it."""
    scatterer = scatterer_from_atoms(atoms)
    side, voxel = like.data.shape[0], like.voxel_size
    if 2 * scatterer.radius > 0.95 * side * voxel:
        raise InputError(
            f"the model is {2 * scatterer.radius:.0f} Å across and the map's box {side * voxel:.0f} Å; "
            "refine with a larger box, or give the part of the model that the map shows"
        )
    centre = np.asarray(atoms.position[0], dtype=float) - scatterer.position[0] - side // 2 * voxel
    return potential_map(scatterer, voxel, side), RigidMotion(rotation=np.eye(3), shift=centre)


def _mirrored(atoms: Atoms) -> Atoms:
    return replace(atoms, position=atoms.position * [-1, 1, 1])


def _overlap(moved: torch.Tensor, mask: torch.Tensor) -> float:
    """Part of a density above zero that lies within a mask; of one that left the box, nothing does."""
    positive = moved.clamp_min(0).double()
    total = float(positive.sum())
    return float((positive * mask).sum()) / total if total > 0 else 0.0


def _cubes(density: Volume, target: Volume, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    moving, fixed = (torch.as_tensor(np.array(v.data, dtype=np.float32)) for v in (density, target))
    return moving, fixed * mask, target.voxel_size


def _best_fit(
    density: Volume, target: Volume, mask: torch.Tensor, starts: list[RigidMotion]
) -> tuple[RigidMotion, torch.Tensor]:
    """Of the fits from several places the one that agrees best within the model's own mask, summed over the shells; and
    its FSC (shell,) within the project's.

    From each place the model is brought onto the map within the project's mask, and the map onto the model within the
    model's: what a map shows beside the model, such as a membrane, would draw a model of a part of it away.
    """
    fixed = torch.as_tensor(np.array(target.data, dtype=np.float32)) * mask
    own_mask, fits = _mask_about(torch.as_tensor(density.data), density.voxel_size), []
    for start in starts:
        within_own = superpose(target, density, own_mask, start.inverse()).inverse()
        for motion in (superpose(density, target, mask, start), within_own):
            fits.append((motion, _within_own_mask(move_map(density, motion, target), target)))
    shells = torch.arange(len(fits[0][1]), dtype=torch.float64) ** 2  # number of samples in a shell, to a factor
    motion, _ = max(fits, key=lambda fit: float((fit[1].clamp(0, 1) * shells).sum()))
    return motion, fourier_shell_correlation(move_map(density, motion, target) * mask, fixed)


def _within_own_mask(moved: torch.Tensor, target: Volume) -> torch.Tensor:
    """(shell,) FSC of a model and the map within a mask about the model; 0 for one that left the box."""
    if not moved.any():
        return torch.zeros(len(moved) // 2 + 1, dtype=torch.float64)
    mask = _mask_about(moved, target.voxel_size)
    fixed = torch.as_tensor(np.array(target.data, dtype=np.float32))
    return fourier_shell_correlation(moved * mask, fixed * mask)


def _mask_about(model: torch.Tensor, voxel: float) -> torch.Tensor:
    filtered = low_pass(model, max(_MASK_SPACING, 4 * voxel), voxel)
    threshold = 0.15 * float(torch.quantile(filtered.flatten()[:: max(1, filtered.numel() // 1_000_000)], 0.999))
    return soft_mask_from_map(filtered, threshold, 0.0, _MASK_EDGE / voxel)


def _notes(resolutions: tuple[float, float, float], own: float, overlap: float) -> list[str]:
    reached, expected, mirrored = resolutions
    notes = []
    if not math.isfinite(min(reached, own)):
        notes.append("the model agrees with the map in no shell: is it of this particle?")
    if mirrored < 0.9 * reached:
        notes.append(f"the mirror image agrees better ({mirrored:.1f} Å): the map has the wrong hand")
    if own < 0.8 * reached or overlap < 0.8:
        notes.append("the model is of a part of the map: the figure of its own mask is the one to look at")
    elif reached > 1.3 * expected:
        notes.append(f"the halves promise {expected:.1f} Å of a perfect model: something is not explained")
    if reached < 0.9 * expected:
        notes.append(f"finer than the halves allow ({expected:.1f} Å): was the model fitted to the noise of this map?")
    return notes


def _read_maps(state: ProjectState) -> tuple[HalfMaps, torch.Tensor]:
    halves = store.load("half_maps", state.finished_giving("half_maps"), state.project)
    mask = store.load("mask", state.finished("postprocess"), state.project)
    return halves, torch.as_tensor(np.array(mask.data, dtype=np.float32))


def _part(progress: Progress, start: float) -> Progress:
    """Four tenths of the work, from start on."""
    return lambda fraction, message: progress(start + 0.4 * fraction, message)
