"""Where polishing stands with one kind of particles: poses, weights of the tilts, half maps and references."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.errors import StageError
from tiltwise.ops.fsc import first_crossing
from tiltwise.ops.maps.superpose import RigidMotion
from tiltwise.ops.particles.chunks import ImageSource, PosedParticles
from tiltwise.ops.particles.gated_weights import GatedWeights, WeightsSoFar
from tiltwise.ops.particles.half_frames import average_halves
from tiltwise.ops.particles.half_maps import (
    exposure_numbers,
    gated_tilt_weights,
    held_out_likelihood,
    weights_to_begin,
)
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.references import alignment_radius, alignment_reference
from tiltwise.ops.polishing.species import Species
from tiltwise.ops.poses.alignment import Alignment, PoseBounds, local_alignment
from tiltwise.ops.rotations import geodesic_angle
from tiltwise.stages.polish.setup import Kind

_THRESHOLD = 0.143


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class State:
    source: ImageSource
    """Tilt series as they are now, and their images."""
    particles: PosedParticles
    """Poses."""
    bounds: PoseBounds
    """How far they may go by themselves: about where they started, moved with the geometry."""
    score: np.ndarray
    """(particle,) log likelihood."""
    uncertainty: np.ndarray
    """(particle, 2) standard deviations of rotation (degrees) and position (Å)."""
    weights: dict[str, TiltWeights]
    """Amplitude and noise of each tilt, by series."""
    weights_so_far: WeightsSoFar | None
    """What each half alone has made of them; None before they were first measured."""
    references: dict[int, torch.Tensor]
    """(n, n, n) masked, filtered, by half set."""
    maps: dict[int, torch.Tensor]
    """Half maps as they are."""
    fsc: torch.Tensor
    """(shell,) of the half maps within the sphere."""
    drift: RigidMotion
    """Of the reference of half 2 against that of half 1 since the average before, taken out of the poses."""

    @property
    def worth(self) -> float:
        """Area under the FSC, shells."""
        return float(self.fsc.clamp(0, 1).sum())


def first_state(kind: Kind) -> tuple[State, GatedWeights]:
    """The particles as they stand, averaged with weights measured on their own average, and the gates of these."""
    weights = weights_to_begin(kind.source, kind.particles, kind.exposure_weighting)
    number = len(kind.particles)
    blank = {"score": np.zeros(number), "uncertainty": np.full((number, 2), np.nan), "weights_so_far": None}
    return weighted(kind, _averaged(kind, kind.source, kind.particles, weights, blank | {"bounds": kind.bounds}))


def aligned_poses(kind: Kind, state: State) -> Alignment:
    """Every pose refined against the reference of its own half."""
    return local_alignment(
        state.source,
        state.particles,
        state.references,
        weights=state.weights,
        resolution=used_resolution(kind, state),
        bounds=state.bounds,
    )


def held_poses(kind: Kind, state: State, aligned: Alignment) -> tuple[Alignment, dict]:
    """The poses, or those before where the images of both halves are less likely for them under the reference of the
    *other* half, by which they were not fitted; and the gate for the record.

    A half whose own reference turns as a whole may lose by it though nothing is wrong: one that gains is enough.
    """
    likelihood = [
        held_out_likelihood(
            state.source, posed, state.references, weights=state.weights, resolution=used_resolution(kind, state)
        )
        for posed in (state.particles, aligned.particles)
    ]
    gain = [after - before for before, after in zip(*likelihood, strict=True)]
    accepted = max(gain) >= 0
    if not accepted:
        aligned = replace(aligned, particles=state.particles, score=state.score, uncertainty=state.uncertainty)
    return aligned, {"accepted": accepted, "gain": gain}


def as_species(kind: Kind, state: State, aligned: Alignment) -> Species:
    """The particles at their new poses, as the blocks of the geometry and the CTF take them."""
    return Species.of(
        state.source,
        aligned.particles,
        state.references,
        weights=state.weights,
        resolution=used_resolution(kind, state),
    )


def worth_variance(kind: Kind, state: State) -> float:
    """Of the area under the FSC in 1/Å: Σ (1 - FSC²)² / n over the shells, n = 2πk² independent values of a whole box,
    fewer as the mask's part of it."""
    fsc, shell = state.fsc.double().clamp(0, 1)[1:], torch.arange(1, len(state.fsc), dtype=torch.float64)
    number = 2 * torch.pi * shell**2 * float((kind.mask > 0.5).double().mean())
    return float(((1 - fsc.cpu() ** 2) ** 2 / number).sum()) / kind.box_width**2


def used_resolution(kind: Kind, state: State) -> float:
    """Finest spacing compared, Å."""
    return kind.box_width / alignment_radius(state.fsc)


def weighted(kind: Kind, state: State) -> tuple[State, GatedWeights]:
    """Weights of the tilts against the references, then new half maps, their FSC, and the next references."""
    found = gated_tilt_weights(
        state.source,
        state.particles,
        state.references,
        weights=state.weights,
        radius=alignment_radius(state.fsc),
        exposure_weighting=kind.exposure_weighting,
        known=state.weights_so_far,
    )
    kept = {"score": state.score, "uncertainty": state.uncertainty, "weights_so_far": found.so_far}
    kept |= {"bounds": state.bounds}
    return _averaged(kind, state.source, state.particles, found.weights, kept), found


def changed(kind: Kind, state: State, aligned: Alignment, species: Species) -> tuple[State, GatedWeights]:
    """The state after a cycle that gave these poses and this geometry: weights, of which the gates are given too, and
    average anew.

    What the geometry moves a particle by, its own images aside, moves its bounds along.
    """
    after = replace(
        state,
        source=species.source,
        particles=species.particles,
        bounds=state.bounds.carried(species.carried),
        score=aligned.score,
        uncertainty=aligned.uncertainty,
    )
    return weighted(kind, after)


def _averaged(kind: Kind, source: ImageSource, particles: PosedParticles, weights: dict, kept: dict) -> State:
    found = average_halves(source, particles, weights=weights, mask=kind.mask, symmetry=kind.symmetry)
    maps, fsc = found.maps, found.fsc
    if not all(bool(torch.isfinite(m).all()) and float(m.std()) > 0 for m in maps.values()):
        raise StageError("polish: the average of a half is empty; are the particles inside the images?")
    pixel_size = source.settings.pixel_size
    references = {half: alignment_reference(one, kind.mask, fsc, pixel_size) for half, one in maps.items()}
    return State(
        source=source,
        particles=found.particles,
        weights=weights,
        references=references,
        maps=maps,
        fsc=fsc,
        drift=found.motion,
        **kept,
    )


def reached_resolution(kind: Kind, state: State) -> float:
    """Where the FSC of the half maps falls below 0.143, Å."""
    return first_crossing(_frequency(kind, state), state.fsc, _THRESHOLD)


def cycle_record(kind: Kind, before: State | None, state: State) -> dict:
    """What a cycle did to one kind, for the report."""
    found = {
        "resolution_fsc_A": reached_resolution(kind, state),
        "fsc_area_shells": state.worth,
        "halves_drifted_deg": state.drift.angle,
        "halves_drifted_A": state.drift.distance,
        "particles": int((state.particles.half_set > 0).sum()),
    }
    if before is None:
        return found
    turned = geodesic_angle(before.particles.rotation, state.particles.rotation, kind.symmetry)
    moved = (state.particles.position - before.particles.position).norm(dim=1)
    return found | {
        "rotation_change_deg": float(turned.median()),
        "shift_change_A": float(moved.median()),
        "score": float(np.mean(state.score)),
    }


def final_record(kind: Kind, state: State) -> dict:
    """What is known of one kind at the end, for the report."""
    error = np.nanmedian(state.uncertainty, axis=0) if np.isfinite(state.uncertainty).any() else (None, None)
    curves = exposure_numbers(
        state.source,
        state.particles,
        state.references,
        weights=state.weights,
        radius=alignment_radius(state.fsc),
    )
    return {
        "box_size_px": kind.source.settings.box_size,
        "fsc_frequency": _frequency(kind, state).tolist(),
        "fsc": state.fsc.tolist(),
        "resolution_fsc_A": reached_resolution(kind, state),
        "tilt_amplitude": {name: w.scale.tolist() for name, w in state.weights.items()},
        "rotation_error_deg": error[0] and float(error[0]),
        "shift_error_A": error[1] and float(error[1]),
        "exposure_curves": curves,
    }


def _frequency(kind: Kind, state: State) -> torch.Tensor:
    return torch.arange(len(state.fsc), dtype=torch.float64) / kind.box_width
