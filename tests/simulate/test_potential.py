"""The potential against closed forms: one atom's form factor, the integral, the mean of a protein, the centre."""

import gemmi
import numpy as np
import pytest
import torch

from tiltwise.data.atoms import Atoms
from tiltwise.data.errors import InputError
from tiltwise.io.model import read_molecule
from tiltwise.ops.fourier import frequency_norm
from tiltwise.simulate.potential import merge_points, potential_map, scatterer_from_atoms


def test_transform_is_the_sum_of_form_factors_less_displaced_ice():
    """V(k) = Σ exp(-2πi k·x) [K f exp(-B k²/4) - V_ice v exp(-π k² v^(2/3))], f and v the means of C and H, both at
    each x. Spreading over grid points leaves aliases of sinc²(7/8) / sinc²(1/8) = 2 % of a single point's
    amplitude."""
    box, voxel, number, b_factor = 32, 2.0, 50, 30.0
    x = np.random.default_rng(0).normal(0, 6, (number, 3))
    x -= x.mean(axis=0)
    element = np.repeat(["C", "H"], number)  # with hydrogens in the model, none are implied
    scatterer = scatterer_from_atoms(
        Atoms(position=np.tile(x, (2, 1)), element=element, b_factor=np.full(2 * number, b_factor))
    )
    data = potential_map(scatterer, voxel, box).data
    spectrum = torch.fft.rfftn(torch.fft.ifftshift(torch.from_numpy(data))) * voxel**3
    k2 = frequency_norm((box,) * 3, voxel).double() ** 2
    factor = torch.zeros_like(k2)
    for symbol in ("C", "H"):
        c = gemmi.Element(symbol).c4322.get_coefs()
        for a, b in zip(c[:5], c[5:], strict=True):
            factor += a * torch.exp(-0.25 * (b + b_factor) * k2)
    volume = (16.44 + 5.15) / 2
    one = 47.878 * factor - 4.53 * 2 * volume * torch.exp(-torch.pi * k2 * volume ** (2 / 3))
    axes = [torch.fft.fftfreq(box, voxel, dtype=torch.float64)] * 2 + [
        torch.fft.rfftfreq(box, voxel, dtype=torch.float64)
    ]
    kz, ky, kx = torch.meshgrid(*axes, indexing="ij")
    phase = torch.einsum("zyxc,pc->zyxp", torch.stack([kx, ky, kz], -1), torch.as_tensor(x))
    expected = one * torch.exp(-2j * torch.pi * phase).sum(-1)
    inside = k2 <= (1 / 8.0) ** 2
    difference = (spectrum - expected)[inside].abs()
    assert float(difference.square().mean().sqrt()) < 0.02 * np.sqrt(3) * np.sqrt(number) * float(one[0, 0, 0])


def test_mean_potential_of_protein_over_ice_is_three_volt(small_scatterer):
    """Notes on physics: protein 7.9 V less ice 4.53 V is 3.4 V; isolated atoms without bonds give a little less."""
    protein, ice = small_scatterer.weight.astype(float).sum(axis=0)
    volume = ice / 4.53
    assert 2.9 < (protein - ice) / volume < 3.5


def test_map_holds_the_whole_potential_at_the_centre(small_scatterer):
    volume = potential_map(small_scatterer, 6.0, 40)
    protein, ice = small_scatterer.weight.astype(float).sum(axis=0)
    assert volume.data.sum() * 6.0**3 == pytest.approx(protein - ice, rel=1e-4)
    index = np.indices(volume.data.shape).reshape(3, -1) - 20
    centre = (index * volume.data.reshape(-1)).sum(axis=1) / volume.data.sum() * 6.0
    assert np.abs(centre).max() < 2.0  # the centre of the atoms' potential; that of the difference lies near


def test_unknown_element_and_small_box_are_said():
    with pytest.raises(InputError, match="no electron form factor"):
        scatterer_from_atoms(Atoms(position=np.zeros((1, 3)), element=np.array(["Xx"]), b_factor=np.zeros(1)))
    far = Atoms(position=np.array([[0.0, 0, 0], [300.0, 0, 0]]), element=np.array(["C", "C"]), b_factor=np.zeros(2))
    with pytest.raises(ValueError, match="does not hold"):
        potential_map(scatterer_from_atoms(far), 4.0, 32)


@pytest.mark.parametrize(
    "symbol, value", [("H", 0.529), ("C", 2.509), ("N", 2.214), ("O", 1.983), ("P", 5.488), ("S", 5.160)]
)
def test_weight_of_one_atom_is_its_form_factor_at_zero(symbol, value):
    """Reference values of the table of Peng; the weight is K f(0), whatever the B-factor."""
    atom = Atoms(
        position=np.zeros((1, 3)), element=np.array([symbol]), b_factor=np.array([20.0]), hydrogens=np.zeros(1)
    )
    assert scatterer_from_atoms(atom).weight[0, 0] == pytest.approx(47.878 * value, rel=5e-4)


def test_hydrogens_on_an_atom_weigh_what_listed_ones_do():
    """CH3 as one carbon with three hydrogens, and as four atoms in one place."""
    carried = Atoms(
        position=np.zeros((1, 3)), element=np.array(["C"]), b_factor=np.array([20.0]), hydrogens=np.array([3.0])
    )
    listed = Atoms(position=np.zeros((4, 3)), element=np.array(["C", "H", "H", "H"]), b_factor=np.full(4, 20.0))
    one, four = scatterer_from_atoms(carried), scatterer_from_atoms(listed)
    assert one.weight.sum(axis=0) == pytest.approx(four.weight.sum(axis=0), rel=1e-6)
    k = torch.linspace(0, 0.4, 9)
    assert torch.allclose(one.form_factors(k)[0], four.form_factors(k)[0], atol=1e-6)


def test_potential_of_real_molecules(shared_data):
    """Notes on physics: protein 7.9 V and RNA 9.3 V within their volume; hydrogens are 18 % of a protein's own
    signal."""
    for name, low, high in (("3j9i_proteasome_20s.pdb", 7.6, 8.0), ("70s_ribosome_eftu_trna.pdb.gz", 8.6, 9.1)):
        atoms = read_molecule(shared_data / "models" / name)
        potential, ice = scatterer_from_atoms(atoms).weight.astype(float).sum(axis=0)
        assert low < potential / (ice / 4.53) < high
        if "proteasome" in name:
            assert 47.878 * 0.5288 * atoms.hydrogens.sum() / potential == pytest.approx(0.18, abs=0.01)


def test_merged_points_keep_the_potential_and_the_coarse_transform(small_scatterer):
    merged = merge_points(small_scatterer, 5.0)
    assert len(merged.position) < len(small_scatterer.position) / 3
    assert merged.weight.astype(float).sum(axis=0) == pytest.approx(small_scatterer.weight.astype(float).sum(axis=0))
    spectra = [torch.fft.rfftn(torch.from_numpy(potential_map(s, 4.0, 48).data)) for s in (small_scatterer, merged)]
    coarse = frequency_norm((48,) * 3, 4.0) < 1 / 20.0
    difference = (spectra[0] - spectra[1])[coarse].abs().square().sum() / spectra[0][coarse].abs().square().sum()
    assert float(difference) < 0.02
    assert merge_points(small_scatterer, 0.0) is small_scatterer
