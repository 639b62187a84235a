"""Paths of single particles fitted to their images, judged by the tilts that had no part in it.

With the quadratics of `ops.poses.terms` and the geometry as it is, y_pi = L_i q_p + B_i c_p, B_i = (0, R_i,xy ⊗
f(N_i)), f the modes of `ops.particles.trajectories`. Particles are independent, so that the pose q_p is eliminated and
c_p found for each by itself:

    g̃_p = Σ_i B_iᵀ g_pi - C_pᵀ V_p⁻¹ l_p,   H̃_p = Σ_i B_iᵀ H_pi B_i - C_pᵀ V_p⁻¹ C_p,   C_p = Σ_i L_iᵀ H_pi B_i,

V_p and l_p as in `ops.polishing.geometry_refinement`. The prior of c is that of a Brownian path, of a width in three
steps.

The gate. Other particles say nothing of this one's path; its other images do. Tilts are dealt in two, every other one
in the order of their angles, so that both hold all directions and the whole exposure. Paths fitted on one must raise
the likelihood of the other, poses at their best on each, summed over all particles and both ways, beyond what chance
gives to a step of this size (3 sqrt(q) - q / 2, q = Σ_p d_p·H̃_p·d_p: the noise of different tilts is independent);
first by the quadratics, then on images cut anew. What pulls at a particle in neighbouring tilts alike, as a dense body
beside it may, could pass this gate: that it is no noise is all that the gate says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.held_out import BlockGate, chance_gain
from tiltwise.ops.particles.trajectories import MODES, mode_deviations, trajectory_basis
from tiltwise.ops.polishing.geometry_blocks import Seen, pose_derivatives, see_particles
from tiltwise.ops.polishing.geometry_refinement import pose_system
from tiltwise.ops.polishing.species import Species, terms_of_species
from tiltwise.ops.poses.terms import PoseTerms

MOTION = 6.0
"""Å, widest prior standard deviation of the first mode along each axis."""
_WIDTHS = (1.0, 0.3, 0.1)
"""Of the prior, relative to it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MotionTerms:
    """The likelihood of some tilts as a quadratic of each particle's path, its pose at its best on these."""

    gradient: np.ndarray
    """(particle, 3 · mode) g̃."""
    information: np.ndarray
    """(particle, 3 · mode, 3 · mode) H̃."""
    pull: np.ndarray
    """(particle, 6) l."""
    curvature: np.ndarray
    """(particle, 6, 6) V."""
    coupling: np.ndarray
    """(particle, 6, 3 · mode) C."""

    def fit(self, present: np.ndarray, width: float) -> np.ndarray:
        """(particle, 3 · mode) the most probable change of paths `present`, Å, under a prior of this width, Å."""
        inverse = np.repeat(mode_deviations(width) ** -2.0, 3)
        right = self.gradient - inverse * present
        return np.linalg.solve(self.information + np.diag(inverse), right[..., None])[..., 0]

    def gain(self, change: np.ndarray) -> float:
        """What the log likelihood of all particles gains by a change (particle, 3 · mode), poses following."""
        return float((self.gradient * change).sum()) - 0.5 * self.square(change)

    def square(self, change: np.ndarray) -> float:
        """Σ_p d_p·H̃_p·d_p."""
        return float(np.einsum("pa,pab,pb->", change, self.information, change))

    def follow(self, change: np.ndarray) -> np.ndarray:
        """(particle, 6) by which poses follow a change, radians and Å."""
        right = self.pull - np.einsum("pab,pb->pa", self.coupling, change)
        return np.linalg.solve(self.curvature, right[..., None])[..., 0]

    @property
    def left_by_poses(self) -> float:
        """What the log likelihood still gains by moving poses alone."""
        return float(0.5 * (self.pull * self.follow(np.zeros_like(self.gradient))).sum())


def motion_terms(seen: Seen, terms: PoseTerms, basis: np.ndarray, tilts: np.ndarray) -> MotionTerms:
    """Of the tilts chosen by (tilt,) bool; basis (tilt, mode)."""
    chosen = tilts.astype(float)
    own = replace(
        terms,
        gradient=terms.gradient * chosen[:, None],
        information=terms.information * chosen[:, None, None],
    )
    pull, curvature = pose_system(seen, own)
    number = len(terms)
    coupling = np.zeros((number, 6, basis.shape[1], 3))
    square = np.zeros((number, basis.shape[1], 3, basis.shape[1], 3))
    slope = np.zeros((number, basis.shape[1], 3))
    for tilt in np.flatnonzero(tilts):
        rows, f = seen.rotations[tilt, :2], basis[tilt]
        across = pose_derivatives(seen, tilt).T @ own.information[:, tilt, :, 3:] @ rows  # (particle, 6, 3)
        coupling += np.einsum("pad,j->pajd", across, f)
        square += np.einsum("pde,j,k->pjdke", across[:, 3:], f, f)
        slope += np.einsum("pd,j->pjd", own.gradient[:, tilt, 3:] @ rows, f)
    size = 3 * basis.shape[1]
    coupling, slope = coupling.reshape(number, 6, size), slope.reshape(number, size)
    solved = np.linalg.solve(curvature, coupling).swapaxes(1, 2)
    return MotionTerms(
        gradient=slope - np.einsum("pba,pa->pb", solved, pull),
        information=square.reshape(number, size, size) - solved @ coupling,
        pull=pull,
        curvature=curvature,
        coupling=coupling,
    )


def deal_tilts(tilt_series: TiltSeries) -> np.ndarray:
    """(used tilt,) 1 or 2: every other one in the order of their angles."""
    order = np.argsort(tilt_series.geometry.tilt_angle[tilt_series.use], kind="stable")
    part = np.empty(len(order), dtype=int)
    part[order] = 1 + np.arange(len(order)) % 2
    return part


def try_widths(parts: Mapping[int, MotionTerms], present: np.ndarray) -> BlockGate:
    """The width of the prior under which paths fitted on either part of the tilts do most for the other."""
    tried = []
    for factor in _WIDTHS:
        gain, chance = [], []
        for part in (1, 2):
            change = parts[3 - part].fit(present, factor * MOTION)
            gain.append(parts[part].gain(change))
            chance.append(chance_gain(parts[part].square(change)))
        tried.append(BlockGate(block="motion", width=factor, gain=tuple(gain), chance=tuple(chance)))
    return max(tried, key=lambda gate: (gate.accepted, min(gate.gain)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrajectoryRefinement:
    """Paths of the particles of one species in one series."""

    species: Species
    """With new paths, poses having followed; as given where nothing was accepted."""
    gate: BlockGate | None
    """What the quadratics said; None where there are no particles, or too few tilts."""
    gain: tuple[float, float]
    """Log likelihood that the images of either part of the tilts gain by paths fitted on the other."""
    moved: float
    """Rms length of the change over used tilts and particles, Å."""

    @property
    def accepted(self) -> bool:
        """Whether the paths were changed."""
        return min(self.gain) > 0

    def record(self) -> dict:
        """For the report."""
        gate = self.gate
        return {
            "accepted": self.accepted,
            "held_out_gain": list(self.gain),
            "width_A": 0.0 if gate is None else gate.width * MOTION,
            "moved_rms_A": self.moved,
            "blocks": {} if gate is None else {gate.block: gate.record()},
        }


_FEWEST_TILTS = 4 * MODES
"""Each part must tell the modes, beside a pose."""


def refine_trajectories(kind: Species, name: str) -> TrajectoryRefinement:
    """Refine the paths of the particles of a species in the series of this name."""
    series = kind.source.tilt_series[name]
    (terms,) = terms_of_species([kind], name)
    nothing = TrajectoryRefinement(species=kind, gate=None, gain=(0.0, 0.0), moved=0.0)
    if terms is None or np.count_nonzero(series.use) < _FEWEST_TILTS:
        return nothing
    seen = see_particles(series, terms.position, terms.rotation)
    basis, part = trajectory_basis(series), deal_tilts(series)
    parts = {number: motion_terms(seen, terms, basis, part == number) for number in (1, 2)}
    present = kind.paths(terms.index, MODES)
    gate = try_widths(parts, present)
    if not gate.accepted:
        return replace(nothing, gate=gate)
    width = gate.width * MOTION
    gain = []
    for number in (1, 2):
        change = parts[3 - number].fit(present, width)
        moved = kind.moved(terms.index, parts[number].follow(change)).along(terms.index, change)
        (after,) = terms_of_species([moved], name)
        rise = (after.likelihood - terms.likelihood)[:, part == number].sum()
        gain.append(float(rise) - parts[number].left_by_poses)
    if min(gain) <= 0:
        return replace(nothing, gate=gate, gain=tuple(gain))
    whole = motion_terms(seen, terms, basis, np.ones(len(part), dtype=bool))
    change = whole.fit(present, width)
    return TrajectoryRefinement(
        species=kind.moved(terms.index, whole.follow(change)).along(terms.index, change),
        gate=gate,
        gain=tuple(gain),
        moved=path_length(change, basis),
    )


def path_length(change: np.ndarray, basis: np.ndarray) -> float:
    """Rms over tilts and particles of the length (Å) of paths (particle, 3 · mode), their means taken off."""
    path = np.einsum("tj,pjd->ptd", basis - basis.mean(axis=0), change.reshape(len(change), -1, 3))
    return float(np.sqrt((path**2).sum(-1).mean()))
