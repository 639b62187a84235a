"""The motion field of greatest likelihood, by scoring with analytic gradients on all patches of all frames at once.

A patch of frame f has F_f(k) = q_f(k) S(k) exp(-2πi k·d_f) + N_f(k), where q_f is what exposure left of the signal and
d_f the displacement of the content in Å. With S and N_f complex Gaussian of variance P and σ², and S integrated out,

    log L = Σ_k w |A|² + const,   A = Σ_f q_f F_f exp(2πi k·d_f),   w = P / (σ² (σ² + P Σ_f q_f²)),

which is every frame's correlation with the sum of the others, each frequency weighted by what it is worth; the terms of
a frame with itself do not depend on d. Its gradient is ∂/∂d_f = -4π Σ_k w k Im(A* q_f F_f exp(2πi k·d_f)). P / σ² is
measured on rings from |A|² - Σ_f |q_f F_f|², anew in each step, so that fine detail counts as soon as the frames agree
on it. The expected second derivative, 8π² Σ_k w P q_f² q_g² k kᵀ between frames f ≠ g, gives steps and standard errors.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.ops.motion.patches import Patches, ring_counts

_SMOOTH_RINGS = 4
_LARGEST_SHARE = 0.98
"""Of a ring's power that may count as signal: measured shares scatter."""
_CONVERGED = 1e-3
"""Of a sample of the patches: a smaller step ends the fit."""
_LONGEST_STEP = 1.5
"""Samples."""
_STEPS = 30
_LEAST_VARIANCE = 1e-4
"""Å²; of the control values of the local part."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Signal:
    """What the patches hold, measured where the displacements put them."""

    weight: torch.Tensor
    """(patch, ring) w of the likelihood."""
    power: torch.Tensor
    """(patch, ring) P, relative to the mean power of a frame."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fit:
    """A fitted field, linear in its parameters."""

    value: np.ndarray
    """(parameter, 2) x, y, Å."""
    error: np.ndarray
    """(parameter,) standard error of each, along x or y alike, Å."""
    signal: Signal
    """At the end of the fit."""
    steps: int
    """Steps taken."""


def coherent_sum(patches: Patches, displacement: np.ndarray) -> torch.Tensor:
    """A(k), (patch, y, x // 2 + 1): the frames' spectra, each taken back by its displacement (patch, frame, 2) Å."""
    return sum(_taken_back(patches, displacement, f) for f in range(displacement.shape[1]))


def log_likelihood(patches: Patches, signal: Signal, total: torch.Tensor) -> float:
    """Σ w |A|², nats, counted for independent coefficients."""
    rings = _ring_power(patches, total)
    return float((rings * signal.weight).sum()) * patches.independence


def gradient(patches: Patches, signal: Signal, total: torch.Tensor, displacement: np.ndarray) -> np.ndarray:
    """(patch, frame, 2) derivative of `log_likelihood` by the displacement, 1/Å; total is A(k)."""
    weighted = total.conj() * (signal.weight.float()[:, patches.ring] * patches.multiplicity)
    kx, ky = patches.frequency
    result = np.empty(displacement.shape)
    for f in range(displacement.shape[1]):
        imaginary = (weighted * _taken_back(patches, displacement, f)).imag
        result[:, f, 0] = (imaginary.sum(dim=1).double() @ kx.double()).numpy()
        result[:, f, 1] = (imaginary.sum(dim=2).double() @ ky.double()).numpy()
    return -4 * math.pi * patches.independence * result


def information(patches: Patches, signal: Signal) -> np.ndarray:
    """(patch, frame, frame) expected information on the displacements along one axis, 1/Å²."""
    each = ring_counts(patches) * signal.weight * signal.power * patches.length.double() ** 2 / 2
    square = patches.decay.double() ** 2
    between = 8 * math.pi**2 * patches.independence * torch.einsum("pr,fr,gr->pfg", each, square, square).numpy()
    laplacian = -between
    frames = np.arange(between.shape[1])
    laplacian[:, frames, frames] += between.sum(axis=2)
    return laplacian


def measure_signal(patches: Patches, total: torch.Tensor) -> Signal:
    """P and w of each ring: its course from all patches together, its height from each."""
    square = patches.decay.double() ** 2
    one, two = square.sum(dim=0), (square**2).sum(dim=0)
    pairs = (one**2 - two).clamp_min(1e-12)
    count = ring_counts(patches).clamp_min(1e-9)
    evidence = (_ring_power(patches, total) - patches.own_power) / pairs
    shape = (_smooth(evidence.sum(dim=0)) / _smooth(count * len(evidence))).clamp_min(0)
    height = (evidence * shape).sum(dim=1) / (count * shape**2).sum().clamp_min(1e-30)
    share = (height.clamp_min(0)[:, None] * shape).clamp_max(_LARGEST_SHARE)
    noise = (1 - share * square.mean(dim=0)).clamp_min(1 - _LARGEST_SHARE)
    used = ring_counts(patches) > 0
    return Signal(weight=share / (noise * (noise + share * one)) * used, power=share * used)


def fit_field(
    patches: Patches,
    basis: np.ndarray,
    start: np.ndarray,
    *,
    local: slice = slice(0, 0),
    variance: float = 1.0,
) -> Fit:
    """The parameters c of displacements basis (patch, frame, parameter) · c, from start (parameter, 2) Å.

    Those in `local` have a normal prior about 0, whose variance (Å², given at the start) is taken from the evidence
    (MacKay 1992): where the patches do not show local motion, it is drawn to nothing.
    """
    value, sample = start.copy(), float(1 / (2 * patches.frequency[0].max()))
    place = _placed(patches, basis, value)
    total = coherent_sum(patches, place)
    signal, covariance, steps = measure_signal(patches, total), np.eye(len(value)), 0
    while steps < _STEPS:
        steps += 1
        slope = np.einsum("pfj,pfc->jc", basis, gradient(patches, signal, total, place))
        known = np.einsum("pfj,pfg,pgk->jk", basis, information(patches, signal), basis, optimize=True)
        prior = np.full(len(value), 1e-9 * max(np.trace(known) / len(value), 1e-9))
        prior[local] = 1 / variance
        covariance = np.linalg.inv(known + np.diag(prior))
        step = covariance @ (slope - prior[:, None] * value)
        longest = np.abs(np.einsum("pfj,jc->pfc", basis, step)).max()
        step *= min(1.0, _LONGEST_STEP * sample / max(longest, 1e-12))
        best = log_likelihood(patches, signal, total) - _penalty(prior, value)
        for _ in range(5):
            place = _placed(patches, basis, value + step)
            total = coherent_sum(patches, place)
            if log_likelihood(patches, signal, total) - _penalty(prior, value + step) >= best:
                break
            step, longest = step / 2, longest / 2
        value = value + step
        signal = measure_signal(patches, total)
        variance = _variance(value[local], covariance[local, local], variance)
        if longest < _CONVERGED * sample:
            break
    return Fit(value=value, error=np.sqrt(np.diag(covariance)), signal=signal, steps=steps)


def gain_over_still(patches: Patches, signal: Signal, displacement: np.ndarray) -> float:
    """Log likelihood of displacements (patch, frame, 2) Å, less that of none, nats."""
    moved, still = (coherent_sum(patches, place - patches.offset) for place in (displacement, 0 * displacement))
    return log_likelihood(patches, signal, moved) - log_likelihood(patches, signal, still)


def choose_patches(patches: Patches, chosen: np.ndarray) -> Patches:
    """Only the patches of an index array."""
    index = torch.as_tensor(chosen)
    return replace(
        patches,
        spectrum=patches.spectrum[index],
        position=patches.position[chosen],
        own_power=patches.own_power[index],
    )


def _placed(patches: Patches, basis: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.einsum("pfj,jc->pfc", basis, value, optimize=True) - patches.offset


def _taken_back(patches: Patches, displacement: np.ndarray, frame: int) -> torch.Tensor:
    """(patch, y, x // 2 + 1) spectra of one frame times exp(2πi k·d)."""
    x, y = (
        torch.exp(2j * math.pi * torch.as_tensor(displacement[:, frame, axis])[:, None] * k.double()[None, :])
        for axis, k in enumerate(patches.frequency)
    )
    moved = patches.spectrum[:, frame] * x.to(torch.complex64)[:, None, :]
    return moved.mul_(y.to(torch.complex64)[:, :, None])


def _ring_power(patches: Patches, total: torch.Tensor) -> torch.Tensor:
    flat, rings = patches.ring.flatten(), len(patches.length)
    power = (total.real**2 + total.imag**2) * patches.multiplicity
    return torch.stack([torch.bincount(flat, weights=p.flatten().double(), minlength=rings) for p in power])


def _smooth(values: torch.Tensor) -> torch.Tensor:
    kernel = torch.ones(1, 1, 2 * _SMOOTH_RINGS + 1, dtype=values.dtype)
    return torch.nn.functional.conv1d(values[None, None], kernel, padding=_SMOOTH_RINGS)[0, 0]


def _penalty(prior: np.ndarray, value: np.ndarray) -> float:
    return 0.5 * float((prior[:, None] * value**2).sum())


def _variance(value: np.ndarray, covariance: np.ndarray, before: float) -> float:
    """The prior's variance of greatest evidence, one step of MacKay's iteration."""
    if not len(value):
        return before
    determined = len(value) - np.trace(covariance) / before
    return max(float((value**2).sum()) / (2 * max(determined, 1e-6)), _LEAST_VARIANCE)
