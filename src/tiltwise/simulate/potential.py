"""From atoms to the electrostatic potential that scatters electrons, less that of the ice they displace.

V(k) = K Σ f(k) exp(-B k²/4) - V_ice Σ v exp(-π k² v^(2/3)) in V Å3, K = h²/(2π m e) = 47.878 V Å2: electron form
factors f of Peng (1999) for neutral atoms, displaced volumes v of Fraser (1978) as Gaussians. Mean of a protein: 3.3
V.
"""

from dataclasses import dataclass

import gemmi
import numpy as np
import torch

from tiltwise.data.atoms import Atoms
from tiltwise.data.errors import InputError
from tiltwise.data.volume import Volume
from tiltwise.ops.fourier import crop_spectrum, frequency_norm
from tiltwise.ops.steady import steady_rfftn

POTENTIAL_OF_FORM_FACTOR = 47.878  # V Å2
ICE_POTENTIAL = 4.53  # V, amorphous ice of 0.93 g/cm3
_HYDROGENS = {"C": 1.3, "N": 1.1, "O": 0.1}  # mean number on an atom of a protein, where a model lists none
_DISPLACED_VOLUME = {"H": 5.15, "C": 16.44, "N": 2.49, "O": 9.13, "S": 19.86, "P": 5.73}  # Å3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scatterer:
    """A molecule as points of two kinds of weight, each kind with one radial form factor shared by all points."""

    position: np.ndarray
    """(point, 3) float32 from the centre of the molecule, Å."""
    weight: np.ndarray
    """(point, 2) float32: potential of the atom, and of the ice it displaces, integrated over space, V Å3."""
    scattering_gaussians: np.ndarray
    """(gaussian, 2) amplitude (sum 1) and B in Å2 of the atoms' form factor Σ a exp(-B k²/4)."""
    displaced_volume: float
    """Mean volume displaced by one point, Å3; sets the width of its Gaussian."""

    @property
    def radius(self) -> float:
        """Greatest distance of a point from the centre, Å."""
        return float(np.linalg.norm(self.position, axis=1).max())

    def form_factors(self, frequency: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The two radial form factors, 1 at the origin, at frequency (1/Å)."""
        k2 = frequency**2
        atoms = torch.zeros_like(k2)
        for amplitude, b in self.scattering_gaussians:
            atoms = atoms + float(amplitude) * torch.exp(-0.25 * float(b) * k2)
        return atoms, torch.exp(-torch.pi * k2 * self.displaced_volume ** (2 / 3))


def scatterer_from_atoms(atoms: Atoms) -> Scatterer:
    """Weights and mean form factors of a molecule, centred on its centre of potential.

    Hydrogens that an atom carries lie on it. Atoms are taken as isolated: bonds would raise low-resolution potentials
    by 1.043 in programs that scale for them (cisTEM, ttsim3d), which this one does not.
    """
    symbols, index, count = np.unique(np.asarray(atoms.element), return_inverse=True, return_counts=True)
    unknown = [s for s in symbols if gemmi.Element(str(s)).atomic_number == 0]
    if unknown:
        raise InputError(f"model: no electron form factor for element {', '.join(map(repr, unknown))}")
    hydrogens = _mean_hydrogens(atoms, symbols, index, count)
    tables = [_gaussians(str(s), h) for s, h in zip(symbols, hydrogens, strict=True)]
    at_zero = np.array([t[:, 0].sum() for t in tables])[index]
    volume = np.array([_volume(str(s)) + h * _DISPLACED_VOLUME["H"] for s, h in zip(symbols, hydrogens, strict=True)])
    volume = volume[index]
    if atoms.hydrogens is not None:  # the mean over an element shapes the form factor, each atom's own its weight
        more = atoms.hydrogens - hydrogens[index]
        at_zero = at_zero + more * _gaussians("H", 0.0)[:, 0].sum()
        volume = volume + more * _DISPLACED_VOLUME["H"]
    gaussians = np.concatenate([t * [n, 1] for t, n in zip(tables, count, strict=True)])
    gaussians = gaussians + [0.0, float(np.mean(atoms.b_factor))]
    gaussians[:, 0] /= gaussians[:, 0].sum()
    weight = np.stack([POTENTIAL_OF_FORM_FACTOR * at_zero, ICE_POTENTIAL * volume], axis=-1)
    position = atoms.position - np.average(atoms.position, axis=0, weights=weight[:, 0])
    return Scatterer(
        position=position.astype(np.float32),
        weight=weight.astype(np.float32),
        scattering_gaussians=gaussians,
        displaced_volume=float(volume.mean()),
    )


def merge_points(scatterer: Scatterer, cell: float) -> Scatterer:
    """The scatterer with all points in each cube of side `cell` Å merged into one at their mean, and as much blur.

    Its transform is that of the given one up to about 1 / (4 cell); beyond, single atoms are no longer seen.
    """
    if cell <= 0:
        return scatterer
    _, index = np.unique(np.floor(scatterer.position / cell).astype(int), axis=0, return_inverse=True)
    index = index.ravel()
    weight = np.stack([np.bincount(index, w) for w in scatterer.weight.T.astype(np.float64)], axis=-1)
    share = scatterer.weight[:, 0].astype(np.float64)
    position = np.stack([np.bincount(index, share * p) for p in scatterer.position.T], axis=-1) / weight[:, :1]
    offset = scatterer.position - position[index]
    variance = float(np.average((offset**2).sum(axis=1), weights=share)) / 3  # along each axis
    return Scatterer(
        position=position.astype(np.float32),
        weight=weight.astype(np.float32),
        scattering_gaussians=scatterer.scattering_gaussians + [0.0, 8 * np.pi**2 * variance],
        displaced_volume=float((scatterer.displaced_volume ** (2 / 3) + 2 * np.pi * variance) ** 1.5),
    )


def potential_map(scatterer: Scatterer, voxel_size: float, box_size: int) -> Volume:
    """The molecule's potential less that of ice, V, band-limited to the grid. Its centre is the middle of the box."""
    fine = 2 * box_size  # points are spread over a grid twice as fine, so that its aliases fall outside the band
    spacing = voxel_size / 2
    grid = _spread(scatterer, spacing, fine)
    total = None
    frequency = frequency_norm((box_size,) * 3, voxel_size)
    kernel = _spreading_transform(box_size, voxel_size, spacing)
    for sign, channel, factor in zip((1, -1), grid, scatterer.form_factors(frequency), strict=True):
        spectrum = steady_rfftn(torch.fft.ifftshift(torch.from_numpy(channel)))
        part = crop_spectrum(spectrum, (fine,) * 3, (box_size,) * 3) * (sign * factor / kernel)
        total = part if total is None else total + part
    data = torch.fft.fftshift(torch.fft.irfftn(total, s=(box_size,) * 3)) / voxel_size**3
    return Volume(data=data.numpy(), voxel_size=voxel_size)


def _mean_hydrogens(atoms: Atoms, symbols: np.ndarray, index: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(element,) mean number of hydrogens on an atom beside those listed; of proteins, where a model does not say."""
    if atoms.hydrogens is not None:
        return np.bincount(index, atoms.hydrogens) / count
    return np.array([0.0 if "H" in symbols else _HYDROGENS.get(str(s), 0.0) for s in symbols])


def _gaussians(symbol: str, hydrogens: float) -> np.ndarray:
    """(gaussian, 2) amplitude Å and B Å2 of an atom with its implicit hydrogens."""
    rows = []
    for name, number in ((symbol, 1.0), ("H", hydrogens)):
        coefficients = gemmi.Element(name).c4322.get_coefs()
        half = len(coefficients) // 2
        rows += [(number * a, b) for a, b in zip(coefficients[:half], coefficients[half:], strict=True) if number]
    return np.array(rows)


def _volume(symbol: str) -> float:
    if symbol in _DISPLACED_VOLUME:
        return _DISPLACED_VOLUME[symbol]
    return 4 / 3 * np.pi * gemmi.Element(symbol).vdw_r ** 3


def _spread(scatterer: Scatterer, spacing: float, size: int) -> np.ndarray:
    """(2, z, y, x) the two weights shared out trilinearly among the grid points."""
    place = scatterer.position[:, ::-1].astype(np.float64) / spacing + size // 2
    corner = np.floor(place).astype(np.int64)
    if corner.min() < 0 or corner.max() + 1 >= size:
        raise ValueError(
            f"a box of {size * spacing:.0f} Å does not hold the molecule (radius {scatterer.radius:.0f} Å)"
        )
    fraction = place - corner
    grid = np.zeros((2, size**3))
    for offset in np.ndindex(2, 2, 2):
        share = np.prod(np.where(offset, fraction, 1 - fraction), axis=1)
        index = np.ravel_multi_index(tuple((corner + offset).T), (size,) * 3)
        for channel in range(2):
            grid[channel] += np.bincount(index, share * scatterer.weight[:, channel], minlength=size**3)
    return grid.reshape(2, size, size, size).astype(np.float32)


def _spreading_transform(size: int, voxel_size: float, spacing: float) -> torch.Tensor:
    """(z, y, x // 2 + 1) transform sinc² of trilinear spreading on a grid of `spacing`, on the frequencies kept."""
    full = torch.sinc(torch.fft.fftfreq(size, voxel_size) * spacing) ** 2
    half = torch.sinc(torch.fft.rfftfreq(size, voxel_size) * spacing) ** 2
    return full[:, None, None] * full[None, :, None] * half
