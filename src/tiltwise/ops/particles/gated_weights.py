"""Weights of the tilts behind gates: fitted on the particles of one half set, kept where the other half's images gain.

With the sums of `ops.particles.tilt_weights` over the images of a half, O = Σ |X|², C = Σ Re(X* m), M = Σ |m|², N of
them, the log likelihood at a tilt and point under an amplitude times f and a noise power times v is

    L(f, v) = -(O - 2 f C + f² M) / 2v - N log v,

since each of two real components has the variance v. So no image is looked at twice: what the weights that half 1 gives
do for half 2, and the other way round, is a closed form. A step d of f has the square Σ d² M, one of log v, of Fisher
information N, the square Σ d² N; what noise alone gives to it is `ops.held_out.chance_gain`. What passes is fitted anew
on both halves together. Series are judged one by one; one without particles in both halves keeps what it has.

The level that all tilts share gains nothing: each half fits it beside both, what is tried and what was.

What was taken is fitted again whenever references and poses are better. As with the geometry
(`ops.polishing.geometry_refinement`), what a half says then is judged over what the same half said before, not over
the joint fit, which knows the images that are asked; so the weights that each half alone gives go along
(`WeightsSoFar`), and priors of amplitudes are about the weights as given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.held_out import BlockGate, chance_gain
from tiltwise.ops.particles.exposure_weights import ExposureWeighting
from tiltwise.ops.particles.images import TiltWeights, spread_shells
from tiltwise.ops.particles.tilt_weights import AgreementSums, noise_left
from tiltwise.ops.particles.weight_blocks import AmplitudeBlock, Columns, Factors, Sums, Weights, amplitude_blocks


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WeightsSoFar:
    """The weights as given, and what each half alone has made of them."""

    given: Weights
    """By series: what priors are about."""
    by_half: Mapping[int, Weights]
    """By half set and series: what the other half judges."""

    @staticmethod
    def as_given(weights: Weights) -> "WeightsSoFar":
        """Nothing is changed."""
        return WeightsSoFar(given=dict(weights), by_half={half: dict(weights) for half in (1, 2)})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GatedWeights:
    """Weights, and what was taken into them."""

    weights: dict[str, TiltWeights]
    """By series."""
    gates: dict[str, tuple[BlockGate, ...]]
    """By series, in the order in which blocks were tried: scale, exposure, noise."""
    determined: dict[str, dict[str, float]]
    """By series and block, how many amplitudes the images determine; 0 where the block was not taken."""
    so_far: WeightsSoFar
    """What each half alone says now."""

    def record(self, name: str) -> dict:
        """Of one series, for the report."""
        gates = self.gates.get(name, ())
        return {
            "accepted": any(gate.accepted for gate in gates),
            "blocks": {gate.block: gate.record() for gate in gates},
            "determined": self.determined.get(name, {}),
        }


def gated_weights(
    halves: Mapping[int, Sums],
    weights: Weights,
    tilt_series: Mapping[str, TiltSeries],
    columns: Columns,
    exposure_weighting: ExposureWeighting,
    known: WeightsSoFar | None = None,
) -> GatedWeights:
    """The weights of all series, changed where that holds on the other half.

    halves: by half set, sums of its images under `weights` against a reference that does not hold them. known: what the
    halves made of them before; None where these are the weights as given.
    """
    known = known or WeightsSoFar.as_given(weights)
    found = GatedWeights(weights=dict(weights), gates={}, determined={}, so_far=known)
    for block in amplitude_blocks(exposure_weighting, tilt_series, columns):
        halves, found = _try_amplitudes(halves, found, block, columns)
    return _try_noise(halves, found, columns)


def both_halves(halves: Mapping[int, Sums]) -> dict[str, AgreementSums]:
    """The sums of all images, by series."""
    result: dict[str, AgreementSums] = {}
    for sums in halves.values():
        result |= {name: result[name] + s if name in result else s for name, s in sums.items()}
    return dict(sorted(result.items()))


def amplitude_gain(
    sums: AgreementSums, after: torch.Tensor, before: torch.Tensor, points: torch.Tensor
) -> tuple[float, float]:
    """What the log likelihood gains by amplitudes times after (tilt, shell) over those times before (tilt, shell), and
    the square of that step."""
    new, old = (spread_shells(values, points) for values in (after, before))
    gain = (new - old) * sums.cross - 0.5 * (new**2 - old**2) * sums.model
    return float(gain.sum()), float(((new - old) ** 2 * sums.model).sum())


def noise_gain(
    sums: AgreementSums, whitened: torch.Tensor, after: torch.Tensor, before: torch.Tensor, points: torch.Tensor
) -> tuple[float, float]:
    """What the log likelihood gains by noise powers `after` over `before` (tilt, shell), of sums that are whitened by
    others, and the square of that step."""
    new, old = (spread_shells(one, points) / spread_shells(whitened, points) for one in (after, before))
    residual, number = sums.observed - 2 * sums.cross + sums.model, sums.number[:, None]
    step = (new / old).log()
    gain = 0.5 * residual * (1 / old - 1 / new) - number * step
    return float(gain.sum()), float((number * step**2).sum())


def _try_amplitudes(
    halves: Mapping[int, Sums], found: GatedWeights, block: AmplitudeBlock, columns: Columns
) -> tuple[dict[int, Sums], GatedWeights]:
    """The sums and the weights under what was taken of a block."""
    given, now = found.so_far.given, found.weights
    start = {name: _with_parts(now[name], given[name], block.parts) for name in both_halves(halves)}
    back = {name: _ratio(one, now[name], block.parts) for name, one in start.items()}
    sums = {half: {n: columns.under(s, back[n]) for n, s in own.items()} for half, own in halves.items()}
    before = {half: _at_level(own, found.so_far.by_half[half], start, block, columns) for half, own in sums.items()}
    fits = {half: block.fit(own, start).factor for half, own in sums.items() if own}
    whole = both_halves(sums)
    joint, kept = block.fit(whole, start), _at_level(whole, now, start, block, columns)
    gates, determined, taken = dict(found.gates), dict(found.determined), {}
    for name in whole:
        told = _told(halves, name)
        steps = [
            amplitude_gain(sums[half][name], fits[3 - half][name], before[3 - half][name], columns.points)
            for half in told
        ]
        taken[name] = _gate(block.name, steps)
        gates[name] = (*gates.get(name, ()), taken[name])
        own = {block.name: joint.determined[name] if taken[name].accepted else 0.0}
        determined[name] = determined.get(name, {}) | own

    def chosen(fitted: Factors, known: Factors) -> dict[str, torch.Tensor]:
        return {name: fitted[name] if taken[name].accepted else one for name, one in known.items()}

    by_half = {half: dict(own) for half, own in found.so_far.by_half.items()}
    for half in fits:
        said = block.put({name: start[name] for name in before[half]}, chosen(fits[half], before[half]))
        by_half[half] |= {name: _with_parts(by_half[half][name], own, block.parts) for name, own in said.items()}
    factor = chosen(joint.factor, kept)
    moved = {half: {n: columns.under(s, factor[n]) for n, s in own.items()} for half, own in sums.items()}
    so_far = replace(found.so_far, by_half=by_half)
    weights = {**now, **block.put(start, factor)}
    return moved, GatedWeights(weights=weights, gates=gates, determined=determined, so_far=so_far)


def _at_level(
    sums: Sums, weights: Weights, start: Weights, block: AmplitudeBlock, columns: Columns
) -> dict[str, torch.Tensor]:
    """(tilt, shell) amplitudes of weights over those that sums are under, by series, at the level that fits best."""
    if not sums:
        return {}
    factor = {name: _ratio(weights[name], start[name], block.parts) for name in sums}
    level = block.level({name: columns.under(s, factor[name]) for name, s in sums.items()})
    return {name: own * level for name, own in factor.items()}


def _with_parts(weights: TiltWeights, other: TiltWeights, parts: tuple[str, ...]) -> TiltWeights:
    """The weights with some fields of others."""
    return replace(weights, **{part: getattr(other, part) for part in parts})


def _ratio(first: TiltWeights, second: TiltWeights, parts: tuple[str, ...]) -> torch.Tensor:
    """(tilt, shell) of the amplitudes that these fields make."""
    ratio = torch.ones_like(first.decay)
    for part in parts:
        own = getattr(first, part) / getattr(second, part)
        ratio = ratio * (own[:, None] if own.ndim == 1 else own)
    return ratio


def _try_noise(halves: Mapping[int, Sums], found: GatedWeights, columns: Columns) -> GatedWeights:
    """The noise that the amplitudes leave unexplained."""
    weights, gates, points = dict(found.weights), dict(found.gates), columns.points
    by_half = {half: dict(own) for half, own in found.so_far.by_half.items()}
    for name, sums in both_halves(halves).items():
        whitened, told = weights[name].noise, _told(halves, name)
        after = {}
        for half in told:  # a half without images of a tilt says what it said
            own = halves[half][name]
            left = noise_left(own, whitened, points, columns.box_size)
            after[half] = torch.where(own.number[:, None] > 0, left, by_half[half][name].noise)
        steps = [
            noise_gain(halves[half][name], whitened, after[3 - half], by_half[3 - half][name].noise, points)
            for half in told
        ]
        gate = _gate("noise", steps)
        gates[name] = (*gates.get(name, ()), gate)
        if gate.accepted:
            weights[name] = replace(weights[name], noise=noise_left(sums, whitened, points, columns.box_size))
            for half, noise in after.items():
                by_half[half][name] = replace(by_half[half][name], noise=noise)
    so_far = replace(found.so_far, by_half=by_half)
    return GatedWeights(weights=weights, gates=gates, determined=found.determined, so_far=so_far)


def _told(halves: Mapping[int, Sums], name: str) -> tuple[int, ...]:
    """The half sets by which a series is judged: both, or none."""
    return (1, 2) if all(name in halves.get(half, {}) for half in (1, 2)) else ()


def _gate(block: str, steps: list[tuple[float, float]]) -> BlockGate:
    """From gain and square in half 1 and in half 2; a series that cannot be judged gains nothing."""
    gain, square = zip(*steps or [(0.0, 0.0)] * 2, strict=True)
    return BlockGate(block=block, width=1.0, gain=gain, chance=tuple(chance_gain(one) for one in square))
