"""The defocus that all tilts of a series share, found by averaging anew under each that may be.

Against a reference that the series itself helped to make under a wrong defocus, the wrong defocus looks right: the
reference has learnt its errors (`ops.polishing.defocus_on_images` then finds a gain of nothing where the truth, as a
reference, gives hundreds of log units). So the reference must follow: for each change the sums of both halves are made
anew, and judged by what the map explains of the images, 2 Σ Re(N₁* N₂) / (D₁ + D₂)
(`ops.particles.averaging.explained_power`). For particles that contribute to a frequency with the transfers c_i under
true ones t_i that is |V|² (Σ c_i t_i)² / Σ c_i², by the inequality of Cauchy and Schwarz greatest where c_i = t_i. (The
FSC of the halves is no judge: it divides by the power of the maps, and prefers zeros of the transfer that do not
coincide, true or not; by it two series were moved apart.)

The gate needs no second half: it is held out by construction. In N₁* N₂ a particle meets what the other half knows, its
own noise never, and one number is chosen, not fitted to either. What chance gives to it:

- Where the defoci are right and the map is known, a change whose square is q gains -q / 2 ± √q, as in `ops.held_out`.
- The noise of the two halves has a product. Each of n = 2πk² f / g independent values of a shell (f the mask's part, g
  the order of the symmetry) adds 2 Re(n₁* n₂) / (D₁ + D₂), of variance 2; between two changes that turn χ by φ = πλk²δ
  it has the correlation ρ², ρ = 1 - s (1 - cos φ), s the series' share of the sums. So the gain has a variance of
  v = 4 Σ n (1 - ρ²) beside q.
- The best of fourteen changes is taken: each may pass by chance a fourteenth as often as one alone would, z = 3.7
  standard deviations for 3.

And it must have a top. What still rises at the end of the search is the contrast at low resolution, which more defocus
adds to, not the place of rings: a series of five particles, its amplitude a little wrong against another's, gained 80
units at the end where its defoci were right.

A gain must exceed the largest z √(q + v) - q / 2 that any q gives: (z² + v) / 2, at q = z² - v, and z √v where v > z².

Sums are made once for all changes, on a grid that holds the band compared and no more. A change δ turns χ by φ = πλk²δ,
the same at all places of a shell, so that with t₀ and t₉₀ the transfers as they are and under a further phase of 90°

    t_δ = cos φ t₀ + sin φ t₉₀,   N_δ = cos φ N₀ + sin φ N₉₀,
    D_δ = cos²φ D₀ + sin²φ D₉₀ + 2 sin φ cos φ D₀,₉₀,

of which D₀,₉₀ = Σ t₀ t₉₀ is D₄₅ - (D₀ + D₉₀) / 2: two more sums tell of any number of changes. Interpolation puts what
belongs to one |k| up to half a node beside it, where φ is another by πλkδ / 2w, w the width of the box: at the end of
the search 0.04 radians at 6 Å in a box of 250 Å. What the maps of several species explain adds up, as log likelihoods
of different images do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from statistics import NormalDist

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.ctf import electron_wavelength
from tiltwise.ops.particles.averaging import Accumulator, accumulate, empty_accumulator, explained_power, merge
from tiltwise.ops.particles.chunks import chunks_under
from tiltwise.ops.particles.images import on_grid
from tiltwise.ops.particles.references import sphere_mask
from tiltwise.ops.peaks import parabola_top
from tiltwise.ops.polishing.defocus_on_images import tells_defocus
from tiltwise.ops.polishing.species import Species
from tiltwise.ops.symmetry import symmetry_order

_REACH, _STEP = 1750.0, 250.0
"""Å, searched to both sides, for tops up to a step before the end: a phase of 0.4 radians at 6 Å a step."""
_STEPS = np.arange(-_REACH, _REACH + 1, _STEP)
_BY_CHANCE = 0.00135
"""How often a right defocus may be changed: beyond three standard deviations, as in the other gates."""
_MARGIN = 1.15
"""The small box holds frequencies this much beyond the band."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CommonDefocus:
    """The change of the defoci of one series, and the evidence for it."""

    change: float
    """Å; 0 where none was accepted."""
    tried: np.ndarray
    """(trial,) changes, Å."""
    explained: np.ndarray
    """(trial,) power of the images explained, log units."""
    variance: np.ndarray
    """(trial,) v of its gain over none, of the halves' noise alone."""

    @property
    def gain(self) -> float:
        """Of the best change tried over none."""
        return float(self.explained.max() - self.explained[self.tried == 0][0])

    @property
    def chance(self) -> np.ndarray:
        """(trial,) what its gain over none must exceed."""
        return chance_of_best(self.variance)

    def record(self) -> dict:
        """For the report."""
        return {
            "change_A": self.change,
            "gain": self.gain,
            "chance": float(self.chance[np.argmax(self.explained)]),
            "determined": {"common_defocus": 1.0} if self.change else {},
            "tried_A": self.tried.tolist(),
            "explained": self.explained.tolist(),
        }


def refine_common_defoci(
    species: Sequence[Species], symmetries: Sequence[str]
) -> tuple[list[Species], dict[str, CommonDefocus]]:
    """Search one change of defocus for each series that has a CTF with rings in the band, and particles in both halves.

    symmetries: imposed on the average of each species. A species for which a series has no rings, or no particles in
    one half, says nothing there. Gives the species under the accepted changes, and what was found by series.
    """
    known = [_Sums.of(kind, symmetry) for kind, symmetry in zip(species, symmetries, strict=True)]
    found = {}
    for name in sorted({name for sums in known for name in sums.kind.series}):
        series = known[0].kind.source.tilt_series[name]
        telling = [sums for sums in known if tells_defocus(sums.kind, series)]
        if not telling:
            continue
        explained = sum(sums.explained(series) for sums in telling)
        found[name] = _choose(explained, sum(sums.variance(series) for sums in telling))
        if found[name].change:
            changed = shifted_defocus(series, found[name].change)
            known = [sums.with_series(changed) for sums in known]
    return [sums.kind for sums in known], found


def shifted_defocus(series: TiltSeries, change: float) -> TiltSeries:
    """The series with all its defoci changed, Å."""
    ctf = series.ctf
    return replace(series, ctf=replace(ctf, defocus_u=ctf.defocus_u + change, defocus_v=ctf.defocus_v + change))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sums:
    """A species, and the sums of its particles in each series."""

    kind: Species
    symmetry: str
    parts: dict[str, dict[int, Accumulator]]
    """By series and half set; empty where no series can be told anything."""

    @staticmethod
    def of(kind: Species, symmetry: str) -> "_Sums":
        given = kind.source.tilt_series
        tells = any(tells_defocus(kind, given[name]) for name in kind.series)
        parts = {name: _sums(kind, [given[name]], symmetry)[0] for name in kind.series} if tells else {}
        return _Sums(kind=kind, symmetry=symmetry, parts=parts)

    def with_series(self, series: TiltSeries) -> "_Sums":
        """With the defocus of one series changed."""
        kind, parts = self.kind.with_series(series), dict(self.parts)
        if series.name in parts:
            parts[series.name] = _sums(kind, [series], self.symmetry)[0]
        return replace(self, kind=kind, parts=parts)

    def explained(self, series: TiltSeries) -> np.ndarray:
        """(trial,) power of the images that is explained under each change of a series."""
        mask, found = _mask(self.kind), []
        others = [part for name, part in self.parts.items() if name != series.name]
        phases = [
            self.parts[series.name],
            *_sums(self.kind, [_phase_added(series, p) for p in (45, 90)], self.symmetry),
        ]
        turn = np.pi * electron_wavelength(series.optics.voltage) * _square_frequency(phases[0][1], self.kind)
        for step in _STEPS.tolist():
            cos, sin = torch.cos(turn * step), torch.sin(turn * step)
            own = {half: _turned(*(part[half] for part in phases), cos, sin) for half in (1, 2)}
            first_half, second_half = (reduce(merge, [own[half], *(o[half] for o in others)]) for half in (1, 2))
            found.append(explained_power(first_half, second_half, mask))
        return np.array(found)

    def variance(self, series: TiltSeries) -> np.ndarray:
        """(trial,) of what the product of the halves' noise adds to the gain of each change."""
        settings = self.kind.source.settings
        shells = np.arange(1, int(settings.radius_of(self.kind.resolution)) + 1)
        mask = float((_mask(self.kind).double() ** 4).mean())
        number = 2 * np.pi * shells**2 * mask / symmetry_order(self.symmetry)
        square = (shells / (settings.box_size * settings.pixel_size)) ** 2
        phase = np.pi * electron_wavelength(series.optics.voltage) * square * _STEPS[:, None]
        weight = {n: sum(float(total.denominator.sum()) for total in part.values()) for n, part in self.parts.items()}
        correlation = 1 - weight[series.name] / sum(weight.values()) * (1 - np.cos(phase))
        return 4 * ((1 - correlation**2) * number).sum(axis=1)


def chance_of_best(variance: np.ndarray) -> np.ndarray:
    """(trial,) what the best of these trials (one of which changes nothing) may gain by chance, v (trial,) the variance
    that the product of two noises gives to each."""
    z = NormalDist().inv_cdf(1 - _BY_CHANCE / (len(variance) - 1))
    return np.where(variance > z**2, z * np.sqrt(variance), (z**2 + variance) / 2)


def _choose(explained: np.ndarray, variance: np.ndarray) -> CommonDefocus:
    still = CommonDefocus(change=0.0, tried=_STEPS, explained=explained, variance=variance)
    best = int(np.argmax(explained))
    accepted = 0 < best < len(_STEPS) - 1 and still.gain > still.chance[best]
    return replace(still, change=parabola_top(_STEPS, explained)) if accepted else still


def _phase_added(series: TiltSeries, degrees: float) -> TiltSeries:
    """The series with so much more phase shift."""
    return replace(series, ctf=replace(series.ctf, phase_shift=series.ctf.phase_shift + degrees))


def _square_frequency(total: Accumulator, kind: Species) -> torch.Tensor:
    """(z, y, x) |k|² at the nodes of sums, 1/Å²."""
    unit = 1 / (total.step * kind.source.settings.box_size * kind.source.settings.pixel_size)
    device = total.numerator.device
    z, y, x = (torch.arange(n, dtype=torch.float64, device=device) for n in total.numerator.shape)
    z, y = z - len(z) // 2, y - len(y) // 2
    return unit**2 * (z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)


def _turned(
    still: Accumulator, eighth: Accumulator, quarter: Accumulator, cos: torch.Tensor, sin: torch.Tensor
) -> Accumulator:
    """The sums with χ turned by a phase of this cosine and sine (z, y, x), from those under 0, 45 and 90° more."""
    mixed = eighth.denominator - (still.denominator + quarter.denominator) / 2
    denominator = cos**2 * still.denominator + sin**2 * quarter.denominator + 2 * sin * cos * mixed
    return replace(
        still,
        numerator=cos * still.numerator + sin * quarter.numerator,
        denominator=denominator.clamp_min(0),  # a sum of squares, but for rounding
    )


def _box(kind: Species) -> int:
    """Side of the small box, even: 2 · radius · margin, at most the box of the crops."""
    radius = kind.source.settings.radius_of(kind.resolution)
    return min(2 * int(np.ceil(radius * _MARGIN) + 2), kind.source.settings.box_size)


def _mask(kind: Species) -> torch.Tensor:
    settings, box = kind.source.settings, _box(kind)
    mask = sphere_mask(box, settings.box_size * settings.pixel_size / box, settings.particle_radius)
    return mask.to(settings.device)


def _empty(kind: Species, symmetry: str) -> dict[int, Accumulator]:
    radius = kind.source.settings.radius_of(kind.resolution)
    device = kind.source.settings.device
    return {half: empty_accumulator(_box(kind), radius, symmetry, device=device) for half in (1, 2)}


def _sums(kind: Species, variants: Sequence[TiltSeries], symmetry: str) -> list[dict[int, Accumulator]]:
    """Sums by half set of the particles of one series, under each of several CTFs of it."""
    totals = [_empty(kind, symmetry) for _ in variants]
    chunks = chunks_under(
        kind.source,
        kind.particles,
        variants,
        weights=kind.weights[variants[0].name],
        resolution=kind.resolution,
    )
    for half, index, cut in chunks:
        rotation = kind.particles.rotation[index]
        still = torch.zeros(len(index), 3, dtype=torch.float64, device=rotation.device)
        for total, images in zip(totals, cut, strict=True):
            accumulate(total[half], on_grid(images, _box(kind)), rotation, still)
    return totals
