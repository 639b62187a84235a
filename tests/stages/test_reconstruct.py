"""The tomogram: beads in their places with positive density, the CTF undone by depth, real beads sharp."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.ctf import ctf
from tiltwise.ops.fourier import frequency_norm, shift_phase
from tiltwise.ops.geometry import project_points, tilt_rotations
from tiltwise.params.reconstruct import ReconstructParams
from tiltwise.stages.reconstruct import default_voxel_size, reconstruct, tomogram_shape
from tiltwise.stages.reconstruct.setup import tomogram_thickness

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "hiv_empiar10164"
TILTS = np.arange(-60, 61, 5.0)


def series(points, *, shape=(130, 141), pixel_size=4.0, axis=85.0, defocus=None, handedness=None, sd=8.0):
    """Tilt series of Gaussian beads (x, y, z Å) in noise, each seen through the CTF of its own depth."""
    n, rng = len(TILTS), np.random.default_rng(0)
    geometry = TiltGeometry(
        tilt_angle=TILTS, tilt_axis_angle=np.full(n, axis), x_tilt=np.full(n, 0.7), shift=rng.normal(0, 20, (n, 2))
    )
    place, depth = project_points(
        torch.as_tensor(points, dtype=torch.float64), tilt_rotations(geometry), torch.as_tensor(geometry.shift)
    )
    optics = Optics()
    kx = torch.fft.rfftfreq(shape[1], pixel_size, dtype=torch.float64)
    ky = torch.fft.fftfreq(shape[0], pixel_size, dtype=torch.float64)
    grid = torch.stack([kx.expand(shape[0], -1), ky[:, None].expand(-1, len(kx))], -1)
    k = frequency_norm(shape, pixel_size).double()
    images = np.empty((n, *shape), np.float32)
    for i in range(n):
        phases = shift_phase(grid, place[i])
        if defocus is None:
            transfer = -torch.ones(len(points), *k.shape)
        else:
            transfer = torch.stack([ctf(k, defocus + handedness * d, optics) for d in depth[i]])
        spectrum = (phases * transfer).sum(0) * torch.exp(-2 * (np.pi * sd * k) ** 2)
        image = torch.fft.fftshift(torch.fft.irfft2(spectrum, s=shape)).numpy()
        images[i] = image + rng.normal(0, 0.12 * np.abs(image).max(), shape)
    fitted = None
    if defocus is not None:
        same, zero = np.full(n, defocus), np.zeros(n)
        fitted = Ctf(
            defocus_u=same,
            defocus_v=same,
            astigmatism_angle=zero,
            phase_shift=zero,
            defocus_error=zero,
            fit_resolution=zero,
        )
    return TiltSeries(
        name="beads",
        images=images,
        image_names=("",) * n,
        pixel_size=pixel_size,
        optics=optics,
        stage_tilt_angle=TILTS,
        nominal_tilt_axis_angle=axis,
        exposure=np.full(n, 3.0),
        pre_exposure=3.0 * np.argsort(np.argsort(np.abs(TILTS))),
        acquisition_order=np.argsort(np.argsort(np.abs(TILTS))),
        use=np.ones(n, bool),
        why_not=("",) * n,
        geometry=geometry,
        ctf=fitted,
        defocus_handedness=handedness,
    )


@pytest.mark.parametrize(
    "shape, voxel_size", [((130, 141), 4.0), ((130, 141), 8.0), ((129, 140), 10.0), ((128, 128), 9.3)]
)
def test_beads_are_positive_and_in_their_places(shape, voxel_size):
    """The median error of eight beads: a centre wrong by half a pixel would show as 2 Å in the image plane."""
    corners = np.stack(np.meshgrid(*[[-85.0, 85.0]] * 3), -1).reshape(-1, 3)
    points = corners + np.random.default_rng(1).uniform(-15, 15, (8, 3))
    beads = series(points, shape=shape, sd=16.0)
    result = reconstruct(beads, ReconstructParams(voxel_size=voxel_size, thickness=400.0))
    data = result.tomogram.data
    errors = []
    for point in points:
        place = np.array(data.shape) // 2 + np.round(point[::-1] / voxel_size).astype(int)
        reach = int(20 / voxel_size)
        window = data[tuple(slice(p - reach, p + reach + 1) for p in place)]
        peak = place - reach + np.array(np.unravel_index(window.argmax(), window.shape))
        offset = []
        for axis in np.eye(3, dtype=int):  # vertex of the parabola through three samples
            before, at, after = (float(data[tuple(peak + step * axis)]) for step in (-1, 0, 1))
            offset.append((before - after) / (2 * (before - 2 * at + after)))
        errors.append(((peak + offset - np.array(data.shape) // 2) * voxel_size)[::-1] - point)
    assert (np.abs(np.median(errors, axis=0)) < [1.2, 1.2, 3.5]).all()  # z is the blurred, noisier direction
    assert data.shape == tuple(result.quality["shape"])


@pytest.mark.parametrize("handedness", [1, -1])
def test_the_ctf_is_undone_at_the_depth_of_each_bead(handedness):
    """Between +200 and -200 Å of depth chi changes by 1 rad at 5 Å: the wrong hand blunts the beads."""
    points = np.array([[0.0, 0.0, z] for z in (-200.0, 0.0, 200.0)])
    beads = series(points, shape=(200, 200), pixel_size=2.5, defocus=15000.0, handedness=handedness, sd=1.0)
    params = ReconstructParams(voxel_size=2.5, thickness=450.0, exposure_weighting=False)

    def heights(tilt_series):
        data = reconstruct(tilt_series, params).tomogram.data
        places = np.array(data.shape) // 2 + np.round(points[:, ::-1] / 2.5).astype(int)
        return np.array([data[tuple(slice(c - 1, c + 2) for c in place)].max() for place in places])

    right, wrong = heights(beads), heights(replace(beads, defocus_handedness=-handedness))
    assert (right[[0, 2]] > 1.1 * wrong[[0, 2]]).all()
    assert right[1] == pytest.approx(wrong[1], rel=0.1)  # at depth 0 the hand does not matter
    assert right.min() > 0.7 * right.max()


def test_only_used_tilts_count():
    beads = series(np.array([[30.0, 20.0, 10.0]]))
    images = beads.images.copy()
    images[3] = np.nan
    use = beads.use.copy()
    use[3] = False
    params = ReconstructParams(voxel_size=8.0, thickness=200.0)
    masked = reconstruct(replace(beads, images=images, use=use), params)
    assert masked.quality["tilts"] == len(TILTS) - 1
    assert np.isfinite(masked.tomogram.data).all()


def test_what_is_missing_is_said_in_one_line():
    beads = series(np.array([[30.0, 20.0, 10.0]]))
    with pytest.raises(StageError, match="beads: not aligned"):
        reconstruct(replace(beads, geometry=None), ReconstructParams())
    with pytest.raises(StageError, match="1 tilts are in use"):
        reconstruct(replace(beads, use=np.arange(len(TILTS)) == 0), ReconstructParams())
    blank = replace(beads, images=np.zeros_like(beads.images))
    with pytest.raises(StageError, match="constant"):
        reconstruct(blank, ReconstructParams(voxel_size=8.0, thickness=100.0))


def test_the_default_voxel_and_the_extent():
    assert default_voxel_size(4.0) == 12.0 and default_voxel_size(10.017) == 10.017 and default_voxel_size(5.0) == 10.0
    beads = series(np.array([[0.0, 0.0, 0.0]]), shape=(100, 140))
    assert tomogram_shape(beads, 400.0, 4.0) == (100, 140, 100)  # axis near image x: tomogram x runs along image y


def test_the_tomogram_is_just_thick_enough():
    """As asked for; else the measured slab, an eighth on either side and room for a particle; else 3000 Å."""
    beads = series(np.array([[0.0, 0.0, 0.0]]), shape=(100, 140))
    measured = replace(beads, specimen_thickness=1600.0)
    assert tomogram_thickness(measured, ReconstructParams(thickness=500.0)) == 500.0
    assert tomogram_thickness(measured, ReconstructParams()) == 1.25 * 1600.0 + 400.0
    assert tomogram_thickness(replace(beads, specimen_thickness=100.0), ReconstructParams()) == 1000.0
    assert tomogram_thickness(beads, ReconstructParams()) == 3000.0
    assert reconstruct(measured, ReconstructParams(voxel_size=40.0)).quality["shape"][0] == 60


@pytest.mark.skipif(not SHARED.exists(), reason="the shared real data are not here")
def test_real_gold_beads_are_sharp_with_the_published_alignment():
    """TS_43: kurtosis is far higher with the published shifts than with none (35 against 15 when written)."""
    import mrcfile
    import starfile

    table = starfile.read(SHARED / "relion5" / "Tomograms" / "job006" / "tilt_series" / "TS_43.star")
    with mrcfile.mmap(SHARED / "stacks" / "TS_43.mrc", permissive=True) as stack:
        images = np.array(stack.data)
    geometry = TiltGeometry(
        tilt_angle=table.rlnTomoYTilt.to_numpy(float),
        tilt_axis_angle=table.rlnTomoZRot.to_numpy(float),
        x_tilt=table.rlnTomoXTilt.to_numpy(float),
        shift=table[["rlnTomoXShiftAngst", "rlnTomoYShiftAngst"]].to_numpy(float),
    )
    n = len(images)
    aligned = replace(
        series(np.zeros((1, 3))),
        images=images,
        pixel_size=10.02,
        geometry=geometry,
        use=np.ones(n, bool),
        exposure=np.full(n, 3.0),
        pre_exposure=table.rlnMicrographPreExposure.to_numpy(float),
    )
    params = ReconstructParams(thickness=1200.0, voxel_size=20.04)
    sharp = reconstruct(aligned, params).quality["kurtosis"]
    unaligned = replace(aligned, geometry=replace(geometry, shift=np.zeros((n, 2))))
    assert sharp > 20 and sharp > 1.8 * reconstruct(unaligned, params).quality["kurtosis"]
