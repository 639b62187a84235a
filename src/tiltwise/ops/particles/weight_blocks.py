"""The amplitudes of the tilts in blocks: how each is fitted to sums of images and models, and put into the weights.

`scale` is one amplitude a tilt; `exposure` a curve over the shells for each, published or measured
(`ops.particles.exposure_weights`). A factor common to all tilts (of a shell, where curves are fitted) is the
reference's own: it is fitted beside a block, and taken out by the gauge.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.particles.exposure_weights import (
    ExposureWeighting,
    expected_amplitude,
    fitted_exposures,
    in_gauge,
    published_decays,
)
from tiltwise.ops.particles.images import TiltWeights, critical_decay, spread_shells
from tiltwise.ops.particles.tilt_weights import AgreementSums, common_amplitude, common_level, tilt_factors

Sums = Mapping[str, AgreementSums]
"""By series."""
Weights = Mapping[str, TiltWeights]
"""By series."""
Factors = Mapping[str, torch.Tensor]
"""(tilt, shell) of the amplitudes assumed, by series."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Columns:
    """What the columns of all sums stand for."""

    points: torch.Tensor
    """(point, 2) frequencies in 1 / box width."""
    box_size: int
    """px."""
    radius: float
    """Last shell that the references hold."""

    def under(self, sums: AgreementSums, factor: torch.Tensor) -> AgreementSums:
        """Sums for models times factor (tilt, shell)."""
        spread = spread_shells(factor, self.points)
        return replace(sums, cross=spread * sums.cross, model=spread**2 * sums.model)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AmplitudeFit:
    """Amplitudes as some sums have them."""

    factor: Factors
    """Of those assumed."""
    determined: dict[str, float]
    """By series, how many numbers the images determine."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AmplitudeBlock:
    """How amplitudes of one kind are fitted and used."""

    name: str
    """scale or exposure."""
    parts: tuple[str, ...]
    """The fields of TiltWeights that it changes."""
    fit: Callable[[Sums, Weights], AmplitudeFit]
    """To sums of images whitened and modelled under weights; priors are about these."""
    level: Callable[[Sums], torch.Tensor]
    """(shell,) the one factor for all tilts of all series that fits sums best."""
    put: Callable[[Weights, Factors], dict[str, TiltWeights]]
    """Weights whose amplitudes are multiplied by factors, in the gauge."""


def amplitude_blocks(
    choice: ExposureWeighting, tilt_series: Mapping[str, TiltSeries], columns: Columns
) -> tuple[AmplitudeBlock, ...]:
    """Those of a choice, in the order in which they are tried."""
    if choice == "measured":
        return (_measured_curves(tilt_series, columns),)
    published = (_published_curves(tilt_series, columns),) if choice == "published" else ()
    return (_scales(columns), *published)


def _scales(columns: Columns) -> AmplitudeBlock:
    """One amplitude a tilt; their mean over all tilts of all series is kept."""
    shells = columns.box_size // 2 + 1

    def level_of(sums: Sums) -> torch.Tensor:
        same = common_amplitude(list(sums.values()), columns.points, columns.radius)
        return torch.full((shells,), same, dtype=torch.float64, device=columns.points.device)

    def fit(sums: Sums, weights: Weights) -> AmplitudeFit:
        level = common_amplitude(list(sums.values()), columns.points, columns.radius)
        factor, determined = {}, {}
        for name, s in sums.items():
            own, determined[name] = tilt_factors(s, level, columns.points, columns.radius)
            factor[name] = own[:, None].expand(-1, shells)
        return AmplitudeFit(factor=factor, determined=determined)

    def put(weights: Weights, factor: Factors) -> dict[str, TiltWeights]:
        scales = {name: weights[name].scale * own[:, 0] for name, own in factor.items()}
        before = torch.cat([weights[name].scale for name in factor])
        gauge = before.mean() / torch.cat(list(scales.values())).mean()
        return {name: replace(weights[name], scale=scale * gauge) for name, scale in scales.items()}

    return AmplitudeBlock(name="scale", parts=("scale",), fit=fit, level=level_of, put=put)


def _published_curves(tilt_series: Mapping[str, TiltSeries], columns: Columns) -> AmplitudeBlock:
    """W_k(f) in the place of the decay; it has one score of each tilt."""

    def fit(sums: Sums, weights: Weights) -> AmplitudeFit:
        decays = published_decays(sums, tilt_series, columns.points, columns.box_size)
        change = {name: decay / weights[name].decay for name, decay in decays.items()}
        changed = [columns.under(s, change[name]) for name, s in sums.items()]
        own = common_level(changed, columns.points, columns.radius, columns.box_size)
        return AmplitudeFit(
            factor={name: one * own for name, one in change.items()},
            determined={name: float(len(one)) for name, one in change.items()},
        )

    def put(weights: Weights, factor: Factors) -> dict[str, TiltWeights]:
        critical = {name: critical_decay(tilt_series[name], columns.box_size, columns.points.device) for name in factor}
        decays = in_gauge({name: weights[name].decay * own for name, own in factor.items()}, critical)
        return {name: replace(weights[name], decay=decay) for name, decay in decays.items()}

    return AmplitudeBlock(name="exposure", parts=("decay",), fit=fit, level=_level_of_shells(columns), put=put)


def _measured_curves(tilt_series: Mapping[str, TiltSeries], columns: Columns) -> AmplitudeBlock:
    """The smooth fit in the place of scale and decay; the scale is the amplitude at the origin, the product counts."""

    def fit(sums: Sums, weights: Weights) -> AmplitudeFit:
        found = fitted_exposures(
            sums, weights, tilt_series, columns.points, box_size=columns.box_size, radius=columns.radius
        )
        factor, determined = {}, {}
        for (name, s), amplitude, error in zip(sums.items(), found.amplitude, found.error, strict=True):
            device = s.model.device
            before = weights[name].scale[:, None] * weights[name].decay
            factor[name] = (amplitude * found.level).to(device) / before
            known = columns.under(s, factor[name] * error.to(device))  # information times covariance of log amplitude
            determined[name] = float(known.model.sum())
        return AmplitudeFit(factor=factor, determined=determined)

    def put(weights: Weights, factor: Factors) -> dict[str, TiltWeights]:
        expected = {
            name: expected_amplitude(tilt_series[name], columns.box_size).to(own) for name, own in factor.items()
        }
        whole = {name: weights[name].scale[:, None] * weights[name].decay * own for name, own in factor.items()}
        return {
            name: replace(weights[name], scale=own[:, 0], decay=own / own[:, :1])
            for name, own in in_gauge(whole, expected).items()
        }

    return AmplitudeBlock(name="exposure", parts=("scale", "decay"), fit=fit, level=_level_of_shells(columns), put=put)


def _level_of_shells(columns: Columns) -> Callable[[Sums], torch.Tensor]:
    return lambda sums: common_level(list(sums.values()), columns.points, columns.radius, columns.box_size)
