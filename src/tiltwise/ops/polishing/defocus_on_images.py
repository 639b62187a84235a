"""The defocus of every tilt refined on the images of its particles: searched exhaustively, then by gradient.

A particle's image is CTF(k; Δz) a s(k), s the reference's slice at its place and a its amplitude over the noise. With
z = Re(X* a s) and d = |a s|², at a change δ of the defocus, χ being each particle's own at its depth,

    c(δ) = Σ_k -sin(χ + π λ k² δ) z,    q(δ) = Σ_k sin²(χ + π λ k² δ) d,

summed over all particles of a tilt, the log likelihood is c - q / 2. But more defocus also means more contrast at low
resolution, and a reference whose amplitudes fall off a little differently than the images' would pose as defocus: at 25
Å it moved the defocus of a series by more than 2000 Å, to the gain of both halves. So the amplitude of each tilt is a
free curve, linear in k² from node to node, one every two half turns of χ (lobes of the CTF), each with a prior of
1 ± 0.5 (κ = 4). With c_b, q_b the sums in bands a quarter of a lobe wide, h_bn the part of node n in band b,

    v_n = Σ_b h_bn c_b + κ,    Q_nm = Σ_b h_bn q_b h_bm + κ δ_nm,    L(δ) = vᵀ Q⁻¹ v / 2.

Each particle is compared with the reference of the *other* half. That of its own holds its own noise, under the CTF
that it was averaged with; amplitudes then come out up to five times too large where the reference ends, and their rise
passes for defocus. Both halves meet the product of their noise, but in any one tilt it is another part of it. Not so in
what is asked of a whole series, so that astigmatism is told by the reference of each half itself.

What is left is where the rings lie; with fewer than two lobes nothing is tried. An amplitude that is constant in each
lobe will not do: where the true one rises within them, zeros of the CTF that lie too far in do better, and single tilts
of a ribosome's series were moved by up to 300 Å from the truth, the same way in both halves, by their angle.

A common change of all tilts is free beside their own, and thrown away: a reference cannot tell it that these tilts have
made, since it has learnt their error (`ops.polishing.defocus_by_average` finds it, afterwards). Without that, what
each tilt has in common with the reference's error passed for a change of its own, and undid what the average had told.

Two blocks, each behind the gate of `ops.polishing.geometry_refinement` (what the particles of one half set say must
raise the likelihood of the other): one change for each tilt, judged over what the same half said the time before; and
astigmatism, A cos 2az + B sin 2az, one for the series, by Gauss-Newton from where it stands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import block_diag

from tiltwise.data.optics import Ctf
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import astigmatic_defocus, ctf_phase, electron_wavelength
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.held_out import BlockGate, chance_gain
from tiltwise.ops.kernels import defocus as kernels
from tiltwise.ops.particles.chunks import particle_chunks
from tiltwise.ops.particles.images import ParticleImages
from tiltwise.ops.particles.tilt_weights import reference_images
from tiltwise.ops.peaks import parabola_top
from tiltwise.ops.polishing.geometry_refinement import Reduced
from tiltwise.ops.polishing.species import Species

STEP = 50.0
"""Å between defoci tried: a phase of a radian at 3 Å is 146 Å."""
OWN, ASTIGMATISM = 300.0, 200.0
"""Prior standard deviations of the change of each tilt, of A and B, Å."""
_REACH = 2.5
"""Standard deviations on either side that are searched."""
_SURE = 4.0
"""κ: information of the prior of an amplitude, 1 ± 0.5."""
_MOST_LOBES = 12
_IN_LOBE, _LOBES_APART = 4, 2
"""Bands in a lobe; lobes from one node of the amplitude to the next. Nodes in every lobe would leave a fifth of what
the rings tell: within a lobe, more at one side than at the other looks like a ring that has moved."""
LEAST_LOBES = 2.0
"""Of the CTF down to the finest spacing compared; with fewer there are no rings to speak of."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DefocusTerms:
    """What the particles of a half set say of the defocus of each used tilt."""

    basis: np.ndarray
    """(band, node) h."""
    cross: np.ndarray
    """(tilt, band, step) c at changes of -count ... count times STEP."""
    power: np.ndarray
    """(tilt, band, step) q."""
    slope: np.ndarray
    """(tilt, band, 3) Σ CTF' z at no change, CTF' by 1, cos 2az, sin 2az of defocus, 1/Å."""
    square: np.ndarray
    """(tilt, band, 3, 3) Σ CTF'² d of these, 1/Å²."""
    mixed: np.ndarray
    """(tilt, band, 3) Σ CTF' CTF d, 1/Å."""

    def __add__(self, other: "DefocusTerms") -> "DefocusTerms":
        return DefocusTerms(basis=self.basis, **{name: getattr(self, name) + getattr(other, name) for name in _SUMS})

    def beside(self, other: "DefocusTerms") -> "DefocusTerms":
        """With the bands of another species, whose amplitudes are its own."""
        rows = {name: (getattr(self, name), getattr(other, name)) for name in _SUMS}
        joined = {name: np.concatenate(pair, axis=1) for name, pair in rows.items()}
        return DefocusTerms(basis=block_diag(self.basis, other.basis), **joined)

    @property
    def change(self) -> np.ndarray:
        """(step,) Å."""
        count = self.cross.shape[-1] // 2
        return STEP * np.arange(-count, count + 1)

    @property
    def profile(self) -> np.ndarray:
        """(tilt, step) log likelihood, amplitudes at their best."""
        seen, known = self._seen(self.cross), self._known(self.power)
        return 0.5 * (seen * np.linalg.solve(known, seen[..., None])[..., 0]).sum(axis=-1)

    @property
    def gradient(self) -> np.ndarray:
        """(tilt, 3) of it at no change, 1/Å, amplitudes eliminated."""
        amplitude = self._amplitude[..., None]
        return (amplitude * (self.slope - amplitude * self.mixed)).sum(axis=1)

    @property
    def information(self) -> np.ndarray:
        """(tilt, 3, 3) Fisher information at no change, 1/Å², amplitudes eliminated."""
        amplitude, middle = self._amplitude, self.cross.shape[-1] // 2
        own = np.einsum("tb,tbcd->tcd", amplitude**2, self.square)
        mixed = np.einsum("bn,tb,tbc->tnc", self.basis, amplitude, self.mixed)
        known = self._known(self.power[..., middle : middle + 1])[:, 0]
        return own - np.einsum("tnc,tnd->tcd", mixed, np.linalg.solve(known, mixed))

    @property
    def _amplitude(self) -> np.ndarray:
        """(tilt, band) the best at no change."""
        middle = slice(self.cross.shape[-1] // 2, self.cross.shape[-1] // 2 + 1)
        seen, known = self._seen(self.cross[..., middle]), self._known(self.power[..., middle])
        return np.linalg.solve(known, seen[..., None])[:, 0, :, 0] @ self.basis.T

    def _seen(self, cross: np.ndarray) -> np.ndarray:
        """(tilt, step, node) v."""
        return np.einsum("bn,tbs->tsn", self.basis, cross) + _SURE

    def _known(self, power: np.ndarray) -> np.ndarray:
        """(tilt, step, node, node) Q."""
        return np.einsum("bn,tbs,bm->tsnm", self.basis, power, self.basis) + _SURE * np.eye(self.basis.shape[1])

    def likelihood(self, change: np.ndarray, common: float) -> float:
        """Of changes (tilt,) of the defoci, Å, beside what all share, against that alone; linear between the steps."""
        profile, steps = self.profile, self.change
        pairs = list(zip(change, profile, strict=True))
        return float(sum(np.interp(common + c, steps, row) - np.interp(common, steps, row) for c, row in pairs))


_SUMS = ("cross", "power", "slope", "square", "mixed")
"""Fields of DefocusTerms that are sums over particles."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DefocusSoFar:
    """How the tilts' own defoci have changed since they were given, and what each half alone says."""

    joint: np.ndarray
    """(used tilt,) fitted on both halves, beside what all tilts share: what the series has, Å."""
    by_half: Mapping[int, np.ndarray]
    """(used tilt,) fitted on each half alone, Å: what the other half judges."""

    @staticmethod
    def as_given(number: int) -> "DefocusSoFar":
        """No change of so many tilts."""
        return DefocusSoFar(joint=np.zeros(number), by_half={half: np.zeros(number) for half in (1, 2)})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DefocusRefinement:
    """A series with refined defoci, or as it was."""

    tilt_series: TiltSeries
    """The series; as given where nothing was accepted."""
    change: np.ndarray
    """(used tilt,) change of the mean defocus, Å."""
    error: np.ndarray
    """(used tilt,) its standard error under the prior, Å; nan where nothing was fitted."""
    gates: tuple[BlockGate, ...]
    """own, astigmatism, as far as they were tried."""
    determined: dict[str, float]
    """By block that was taken, how many of its numbers the images determine."""
    so_far: DefocusSoFar | None
    """All changes since the defoci were given; None where none was ever tried."""

    @property
    def accepted(self) -> bool:
        """Whether any block was taken."""
        return any(gate.accepted for gate in self.gates)

    def record(self) -> dict:
        """For the report."""
        return {
            "accepted": self.accepted,
            "change_A": self.change.tolist(),
            "error_A": self.error.tolist(),
            "determined": self.determined,
            "blocks": {gate.block: gate.record() for gate in self.gates},
        }


def refine_defocus(species: Sequence[Species], name: str, known: DefocusSoFar | None = None) -> DefocusRefinement:
    """Refine the defoci of the series of this name on the particles of all species; without a CTF it stays as it is.

    known: what refinement before has made of each tilt's own; its prior is about the defoci as given.
    """
    series = species[0].source.tilt_series[name]
    used = int(np.count_nonzero(series.use))
    nothing = DefocusRefinement(
        tilt_series=series, change=np.zeros(used), error=np.full(used, np.nan), gates=(), determined={}, so_far=known
    )
    species = [kind for kind in species if tells_defocus(kind, series)]
    if not species:
        return nothing
    halves = defocus_terms([kind.across() for kind in species], series, searched=True)
    known = known or DefocusSoFar.as_given(used)
    gate_of_own, found = _try_changes(halves, known)
    reached = found.joint - known.joint
    bent, gate, bending = _try_astigmatism(species, _with_defocus(series, reached))
    information = sum(half.information[:, 0, 0] for half in halves.values())
    own_part = float((information / (information + 1 / OWN**2)).sum())
    own_taken = gate_of_own.accepted
    determined = {"own": own_part if own_taken else 0.0, "astigmatism": bending if gate.accepted else 0.0}
    return DefocusRefinement(
        tilt_series=bent if own_taken or gate.accepted else series,
        change=reached,
        error=1 / np.sqrt(information + 1 / OWN**2),
        gates=(gate_of_own, gate),
        determined=determined,
        so_far=found,
    )


def defocus_terms(species: Sequence[Species], series: TiltSeries, *, searched: bool) -> dict[int, DefocusTerms]:
    """By half set, the terms of all species at the defoci of a series; searched: over the grid, else there alone.

    Every species has particles of the same half sets there.
    """
    result: dict[int, DefocusTerms] = {}
    for kind in species:
        found = _species_terms(kind, series, int(np.ceil(_REACH * OWN / STEP)) if searched else 0)
        result = {half: result[half].beside(terms) if result else terms for half, terms in found.items()}
    return result


def _species_terms(kind: Species, series: TiltSeries, count: int) -> dict[int, DefocusTerms]:
    """Those of one species by half set."""
    result: dict[int, DefocusTerms] = {}
    own = kind.with_series(replace(series, ctf=None)).within(series.name)
    chunks = particle_chunks(own.source, own.particles, weights=own.weights, resolution=own.resolution)
    for _, half, index, images in chunks:
        still = torch.zeros(len(index), 3, dtype=torch.float64, device=images.data.device)
        slices = reference_images(images, own.grids[half], own.particles.rotation[index], still)
        terms = _chunk_terms(series, own.particles.position[index], images, slices, count)
        result[half] = result[half] + terms if half in result else terms
    return result


def profile_plain(
    cross: torch.Tensor, power: torch.Tensor, phase: torch.Tensor, turn: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(tilt, 2 count + 1) c and q: the plain twin of kernels.defocus.defocus_profile, on any device."""
    rows = []
    for j in range(-count, count + 1):
        value = -torch.sin(phase + j * turn)
        rows.append(torch.stack([(value * cross).double().sum((0, 2)), (value**2 * power).double().sum((0, 2))]))
    return tuple(torch.stack(rows, dim=-1))


def _chunk_terms(
    series: TiltSeries, position: torch.Tensor, images: ParticleImages, slices: torch.Tensor, count: int
) -> DefocusTerms:
    """Of a chunk whose images were cut without a CTF, so that their transfer is the amplitude a, its sign turned."""
    amplitude = -images.transfer
    cross = amplitude * (images.data.real * slices.real + images.data.imag * slices.imag)
    power = amplitude**2 * (slices.real**2 + slices.imag**2)
    frequency = images.points.norm(dim=-1) / (images.box_size * images.pixel_size)
    azimuth = torch.atan2(images.points[:, 1], images.points[:, 0])
    phase = _phase(series, position, frequency, azimuth)
    turn = np.pi * electron_wavelength(series.optics.voltage) * frequency**2
    value, derivative = -torch.sin(phase), -torch.cos(phase) * turn
    basis = torch.stack([torch.ones_like(azimuth), torch.cos(2 * azimuth), torch.sin(2 * azimuth)])
    mixed = derivative * value * power
    rows: dict[str, list[np.ndarray]] = {name: [] for name in _SUMS}
    bands, nodes = _bands(series, frequency)
    for own in bands:
        part = _profile(cross[..., own], power[..., own], phase[..., own], STEP * turn[own], count)
        of = basis[:, own]
        found = {
            "cross": part[0],
            "power": part[1],
            "slope": torch.einsum("ptn,bn->tb", (derivative * cross)[..., own], of),
            "square": torch.einsum("ptn,bn,cn->tbc", (derivative**2 * power)[..., own], of, of),
            "mixed": torch.einsum("ptn,bn->tb", mixed[..., own], of),
        }
        for name, values in found.items():
            rows[name].append(values.double().cpu().numpy())
    return DefocusTerms(basis=nodes, **{name: np.stack(values, axis=1) for name, values in rows.items()})


def _bands(series: TiltSeries, frequency: torch.Tensor) -> tuple[list[slice], np.ndarray]:
    """Points, |k| rising, of bands equally wide in k², a part of a lobe of the CTF each; and (band, node) what part
    each node of the amplitude has in them."""
    square = frequency**2
    lobes = float(np.clip(count_lobes(series, float(square.max()) ** -0.5), 1, _MOST_LOBES))
    number, nodes = round(_IN_LOBE * lobes), max(2, round(lobes / _LOBES_APART) + 1)
    edges = torch.searchsorted(square, torch.linspace(0, float(square.max()), number + 1)[1:-1].to(square))
    ends = [0, *edges.tolist(), len(frequency)]
    place = (np.arange(number) + 0.5) / number * (nodes - 1)
    basis = np.clip(1 - np.abs(place[:, None] - np.arange(nodes)), 0, None)
    return [slice(first, last) for first, last in zip(ends[:-1], ends[1:], strict=True)], basis


def tells_defocus(kind: Species, series: TiltSeries) -> bool:
    """Whether a species has rings in its band, and particles in both halves of a series."""
    halves = kind.within(series.name).particles.half_set
    return count_lobes(series, kind.resolution) >= LEAST_LOBES and {1, 2} <= set(halves.tolist())


def count_lobes(series: TiltSeries, resolution: float) -> float:
    """Half turns of χ down to a spacing, Å, at the median defocus: λ Δz / d². 0 where no CTF is known."""
    if series.ctf is None:
        return 0.0
    defocus = float(np.median(series.ctf.mean_defocus[series.use]))
    return electron_wavelength(series.optics.voltage) * abs(defocus) / resolution**2


def _profile(
    cross: torch.Tensor, power: torch.Tensor, phase: torch.Tensor, turn: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    if cross.device.type != "cpu":
        return profile_plain(cross, power, phase, turn, count)
    sums = np.zeros((2, cross.shape[1], 2 * count + 1))
    arrays = (a.contiguous().numpy() for a in (cross, power, phase.float(), turn.float()))
    kernels.defocus_profile(*arrays, count, sums)
    return tuple(torch.from_numpy(sums))


def _phase(series: TiltSeries, position: torch.Tensor, frequency: torch.Tensor, azimuth: torch.Tensor) -> torch.Tensor:
    """(particle, tilt, point) float32 χ of each particle at its own depth."""
    used = np.flatnonzero(series.use)
    _, depth = specimen_in_images(series, position.cpu().numpy(), used)
    u, v, angle, shift = (
        torch.as_tensor(values[used], dtype=torch.float32, device=frequency.device)[:, None]
        for values in (
            series.ctf.defocus_u,
            series.ctf.defocus_v,
            series.ctf.astigmatism_angle,
            series.ctf.phase_shift,
        )
    )
    height = torch.as_tensor((series.defocus_handedness or 0) * depth.T, dtype=torch.float32, device=frequency.device)
    defocus = astigmatic_defocus(azimuth, u, v, angle) + height[..., None]
    return ctf_phase(frequency, defocus, series.optics, shift)


def _try_changes(halves: dict[int, DefocusTerms], known: DefocusSoFar) -> tuple[BlockGate, DefocusSoFar]:
    """A change of each tilt's own, beside what all tilts share, which each half has for itself; and all changes after
    it, which are those before where it does not hold."""
    best = {half: _best_changes(terms, known.joint) for half, terms in halves.items()}
    gain, chance = [], []
    for half in (1, 2):
        (new, _), old, common = best[3 - half], known.by_half[3 - half], best[half][1]
        after, before = (halves[half].likelihood(own - known.joint, common) for own in (new, old))
        gain.append(after - before)
        chance.append(chance_gain(float((halves[half].information[:, 0, 0] * (new - old) ** 2).sum())))
    gate = BlockGate(block="own", width=1.0, gain=tuple(gain), chance=tuple(chance))
    if not gate.accepted:
        return gate, known
    joint, _ = _best_changes(halves[1] + halves[2], known.joint)
    return gate, DefocusSoFar(joint=joint, by_half={half: best[half][0] for half in (1, 2)})


def _best_changes(terms: DefocusTerms, present: np.ndarray) -> tuple[np.ndarray, float]:
    """(tilt,) the most probable changes since the defoci were given, of which these are `present` (tilt,), and what all
    tilts share beside them, of which nothing is held likelier.

    For each shared change of the grid each tilt's own is the top of profile and prior, by a parabola through its place.
    """
    profile, steps = terms.profile, terms.change
    reached = [profile - 0.5 * ((present[:, None] + steps - shared) / OWN) ** 2 for shared in steps]
    best = int(np.argmax([rows.max(axis=1).sum() for rows in reached]))
    shared = float(steps[best])
    return present + np.array([parabola_top(steps, row) for row in reached[best]]) - shared, shared


def _try_astigmatism(species: Sequence[Species], series: TiltSeries) -> tuple[TiltSeries, BlockGate, float]:
    """A and B of the whole series, the tilts' own changes following as far as their prior lets them; and how many of
    the two the images determine."""
    halves = defocus_terms(species, series, searched=False)
    reduced = {half: _reduced_astigmatism(terms) for half, terms in halves.items()}
    unit = np.ones(2)
    fits = {half: part.fit(unit) for half, part in reduced.items()}
    gain, chance = [], []
    for half in (1, 2):
        bent = defocus_terms(
            [kind.within(series.name, (half,)) for kind in species],
            _with_astigmatism(series, fits[3 - half]),
            searched=False,
        )
        gain.append(float(bent[half].profile.sum() - halves[half].profile.sum()))
        chance.append(chance_gain(float(fits[3 - half] @ reduced[half].information @ fits[3 - half])))
    gate = BlockGate(block="astigmatism", width=1.0, gain=tuple(gain), chance=tuple(chance))
    both = reduced[1] + reduced[2]
    bent = _with_astigmatism(series, both.fit(unit)) if gate.accepted else series
    return bent, gate, float(both.determined(unit).sum())


def _reduced_astigmatism(terms: DefocusTerms) -> Reduced:
    """The quadratic of A and B, in units of their prior."""
    return Reduced(
        gradient=ASTIGMATISM * terms.gradient[:, 1:].sum(0),
        information=ASTIGMATISM**2 * terms.information[:, 1:, 1:].sum(0),
    )


def _with_defocus(series: TiltSeries, change: np.ndarray) -> TiltSeries:
    u, v = series.ctf.defocus_u.astype(float), series.ctf.defocus_v.astype(float)
    u[series.use] += change
    v[series.use] += change
    return replace(series, ctf=replace(series.ctf, defocus_u=u, defocus_v=v))


def _with_astigmatism(series: TiltSeries, change: np.ndarray) -> TiltSeries:
    """All tilts with A and B changed by (2,) in units of the prior: half of u - v as a vector of twice its angle."""
    fitted: Ctf = series.ctf
    half, angle = (fitted.defocus_u - fitted.defocus_v) / 2, np.radians(2 * fitted.astigmatism_angle)
    a, b = half * np.cos(angle) + ASTIGMATISM * change[0], half * np.sin(angle) + ASTIGMATISM * change[1]
    mean, size = fitted.mean_defocus, np.hypot(a, b)
    return replace(
        series,
        ctf=replace(
            fitted,
            defocus_u=mean + size,
            defocus_v=mean - size,
            astigmatism_angle=np.degrees(np.arctan2(b, a)) / 2,
        ),
    )
