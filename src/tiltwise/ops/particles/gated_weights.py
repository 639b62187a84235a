"""Weights of the tilts behind gates: fitted on the particles of one half set, kept where the other half's images gain.

With the sums of `ops.particles.tilt_weights` over the images of a half, O = Σ |X|², C = Σ Re(X* m), M = Σ |m|², N of
them, the log likelihood at a tilt and point under an amplitude times f and a noise power times v is

    L(f, v) = -(O - 2 f C + f² M) / 2v - N log v,

since each of two real components has the variance v. So no image is looked at twice: what the weights that half 1 gives
do for half 2, and the other way round, is a closed form. A step d of f has the square Σ d² M, one of log v, of Fisher
information N, the square Σ d² N; what noise alone gives to it is `ops.held_out.chance_gain`. What passes is fitted anew
on both halves together. Series are judged one by one; one without particles in both halves keeps what it has.

The level that all tilts share gains nothing: each half fits it beside both, what is tried and what was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.held_out import BlockGate, chance_gain
from tiltwise.ops.particles.exposure_weights import ExposureWeighting
from tiltwise.ops.particles.images import TiltWeights, spread_shells
from tiltwise.ops.particles.tilt_weights import AgreementSums, noise_left
from tiltwise.ops.particles.weight_blocks import AmplitudeBlock, AmplitudeFit, Columns, Sums, amplitude_blocks


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GatedWeights:
    """Weights, and what was taken into them."""

    weights: dict[str, TiltWeights]
    """By series."""
    gates: dict[str, tuple[BlockGate, ...]]
    """By series, in the order in which blocks were tried: scale, exposure, noise."""
    determined: dict[str, dict[str, float]]
    """By series and block, how many amplitudes the images determine; 0 where the block was not taken."""

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
    weights: Mapping[str, TiltWeights],
    tilt_series: Mapping[str, TiltSeries],
    columns: Columns,
    exposure_weighting: ExposureWeighting,
) -> GatedWeights:
    """The weights of all series, changed where that holds on the other half.

    halves: by half set, sums of its images under `weights` against a reference that does not hold them.
    """
    found = GatedWeights(weights=dict(weights), gates={}, determined={})
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
    sums: AgreementSums, factor: torch.Tensor, level: torch.Tensor, points: torch.Tensor
) -> tuple[float, float]:
    """What the log likelihood gains by amplitudes times factor (tilt, shell) over those times level (shell,), and the
    square of that step."""
    new, old = (spread_shells(values, points) for values in (factor, level))
    gain = (new - old) * sums.cross - 0.5 * (new**2 - old**2) * sums.model
    return float(gain.sum()), float(((new - old) ** 2 * sums.model).sum())


def noise_gain(
    sums: AgreementSums, before: torch.Tensor, after: torch.Tensor, points: torch.Tensor
) -> tuple[float, float]:
    """What the log likelihood gains by noise powers (tilt, shell) over those that the sums are whitened by, and the
    square of that step."""
    change = spread_shells(after, points) / spread_shells(before, points)
    residual = sums.observed - 2 * sums.cross + sums.model
    number = sums.number[:, None]
    gain = 0.5 * residual * (1 - 1 / change) - number * change.log()
    return float(gain.sum()), float((number * change.log() ** 2).sum())


def _try_amplitudes(
    halves: Mapping[int, Sums], found: GatedWeights, block: AmplitudeBlock, columns: Columns
) -> tuple[dict[int, Sums], GatedWeights]:
    """The sums and the weights under what was taken of a block."""
    fits = {half: block.fit(sums, found.weights) for half, sums in halves.items() if sums}
    joint = block.fit(both_halves(halves), found.weights)
    factor, gates, determined = {}, dict(found.gates), dict(found.determined)
    for name, fitted in joint.factor.items():
        told = _told(halves, name)
        steps = [_held_out_step(halves[half][name], fits[3 - half], name, columns) for half in told]
        gate = _gate(block.name, steps)
        factor[name] = fitted if gate.accepted else joint.level.expand_as(fitted)
        gates[name] = (*gates.get(name, ()), gate)
        own = {block.name: joint.determined[name] if gate.accepted else 0.0}
        determined[name] = determined.get(name, {}) | own
    moved = {half: {n: columns.under(s, factor[n]) for n, s in sums.items()} for half, sums in halves.items()}
    weights = found.weights | block.put(found.weights, factor)
    return moved, GatedWeights(weights=weights, gates=gates, determined=determined)


def _held_out_step(sums: AgreementSums, fit: AmplitudeFit, name: str, columns: Columns) -> tuple[float, float]:
    return amplitude_gain(sums, fit.factor[name], fit.level, columns.points)


def _try_noise(halves: Mapping[int, Sums], found: GatedWeights, columns: Columns) -> GatedWeights:
    """The noise that the amplitudes leave unexplained."""
    weights, gates, points = dict(found.weights), dict(found.gates), columns.points
    for name, sums in both_halves(halves).items():
        before, steps = weights[name].noise, []
        for half in _told(halves, name):
            after = noise_left(halves[3 - half][name], before, points, columns.box_size)
            steps.append(noise_gain(halves[half][name], before, after, points))
        gate = _gate("noise", steps)
        gates[name] = (*gates.get(name, ()), gate)
        if gate.accepted:
            weights[name] = replace(weights[name], noise=noise_left(sums, before, points, columns.box_size))
    return GatedWeights(weights=weights, gates=gates, determined=found.determined)


def _told(halves: Mapping[int, Sums], name: str) -> tuple[int, ...]:
    """The half sets by which a series is judged: both, or none."""
    return (1, 2) if all(name in halves.get(half, {}) for half in (1, 2)) else ()


def _gate(block: str, steps: list[tuple[float, float]]) -> BlockGate:
    """From gain and square in half 1 and in half 2; a series that cannot be judged gains nothing."""
    gain, square = zip(*steps or [(0.0, 0.0)] * 2, strict=True)
    return BlockGate(block=block, width=1.0, gain=gain, chance=tuple(chance_gain(one) for one in square))
