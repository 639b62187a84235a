"""Tilt series of particles made of Gaussians, from closed forms: nothing of the refinement's own slices is used."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.data.volume import Volume

PIXEL, SIZE, SIGMA = 8.0, 128, 9.0
DIAMETER = 150.0


@dataclass(frozen=True)
class Scene:
    tilt_series: dict
    particles: Particles
    centres: np.ndarray


def blobs(seed=1, number=10):
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(number, 3))
    return direction / np.linalg.norm(direction, axis=1)[:, None] * rng.uniform(15, 55, (number, 1))


def reference(centres, box=32, sigma=20.0):
    """The particle at low resolution: broader Gaussians at the same places."""
    z, y, x = np.meshgrid(*[(np.arange(box) - box // 2) * PIXEL] * 3, indexing="ij")
    square = sum((a - c[:, None, None, None]) ** 2 for a, c in zip((x, y, z), centres.T, strict=True))
    return Volume(data=np.exp(-square / (2 * sigma**2)).sum(0).astype(np.float32), voxel_size=PIXEL)


def scene(series=2, particles=12, noise=0.7, seed=0):
    """Series of 21 tilts, each with its own particles on a jittered lattice, defocus by depth, and white noise."""
    rng = np.random.default_rng(seed)
    centres, made, parts = blobs(), {}, []
    for number in range(series):
        name = f"TS_{number + 1}"
        made[name] = tilts_of(name, rng)
        lattice = np.stack(np.meshgrid(*[np.arange(-1, 2) * 220.0] * 2, indexing="ij"), -1).reshape(-1, 2)
        lattice = np.concatenate([lattice, lattice[:3] + [110, 110]])[:particles]
        position = np.concatenate([lattice, rng.uniform(-100, 100, (len(lattice), 1))], 1)
        rotation = Rotation.random(len(position), random_state=int(rng.integers(1000)))
        parts.append((name, position, rotation))
        made[name] = replace(
            made[name], images=with_noise(project_blobs(made[name], position, rotation, centres), noise, rng)
        )
    return Scene(tilt_series=made, particles=put_together(parts), centres=centres)


def put_together(parts):
    number = sum(len(p) for _, p, _ in parts)
    return Particles(
        tilt_series=np.concatenate([np.full(len(p), n) for n, p, _ in parts]),
        position=np.concatenate([p for _, p, _ in parts]),
        rotation=Rotation.concatenate([r for _, _, r in parts]),
        score=np.ones(number),
        half_set=np.zeros(number, dtype=int),
        region=np.full(number, -1),
    )


def tilts_of(name, rng):
    tilt = np.arange(-60.0, 61.0, 6.0)
    number = len(tilt)
    return TiltSeries(
        name=name,
        images=np.zeros((number, SIZE, SIZE), np.float32),
        image_names=("",) * number,
        pixel_size=PIXEL,
        optics=Optics(),
        stage_tilt_angle=tilt,
        nominal_tilt_axis_angle=85.0,
        exposure=np.full(number, 1.0),
        pre_exposure=np.abs(tilt) / 3,
        acquisition_order=np.argsort(np.argsort(np.abs(tilt))),
        use=np.ones(number, bool),
        why_not=("",) * number,
        geometry=TiltGeometry(
            tilt_angle=tilt,
            tilt_axis_angle=np.full(number, 85.0),
            x_tilt=np.zeros(number),
            shift=rng.normal(0, 10, (number, 2)),
        ),
        ctf=Ctf(
            defocus_u=np.full(number, 30000.0),
            defocus_v=np.full(number, 29700.0),
            astigmatism_angle=np.full(number, 30.0),
            phase_shift=np.zeros(number),
            defocus_error=np.zeros(number),
            fit_resolution=np.full(number, 20.0),
        ),
        defocus_handedness=-1,
    )


def project_blobs(series, position, rotation, centres, moved=None):
    """Every Gaussian of every particle as a phase in Fourier space, times -sin chi at its particle's depth; in tilt i
    the particles are moved by moved[i] (particle, 3), Å."""
    k = np.stack(np.meshgrid(np.fft.fftfreq(SIZE, PIXEL), np.fft.rfftfreq(SIZE, PIXEL), indexing="ij")[::-1], -1)
    square, azimuth = (k**2).sum(-1), np.arctan2(k[..., 1], k[..., 0])
    envelope = np.exp(-2 * np.pi**2 * SIGMA**2 * square)
    wavelength = 0.0196875
    images = []
    for i in range(series.number):
        g = series.geometry
        turn = Rotation.from_euler("z", g.tilt_axis_angle[i], degrees=True)
        turn = turn * Rotation.from_euler("y", g.tilt_angle[i], degrees=True)
        total = np.zeros(square.shape, complex)
        for p, r in zip(position if moved is None else position + moved[i], rotation, strict=True):
            u, v = series.ctf.defocus_u[i], series.ctf.defocus_v[i]
            defocus = 0.5 * (u + v + (u - v) * np.cos(2 * (azimuth - np.radians(30.0))))
            defocus = defocus + series.defocus_handedness * turn.apply(p)[2]
            chi = np.pi * wavelength * square * (defocus - 0.5 * wavelength**2 * square * 2.7e7) + np.arcsin(0.07)
            place = turn.apply(p + r.apply(centres))[:, :2] + g.shift[i]
            place = place + SIZE // 2 * PIXEL
            rows = np.exp(-2j * np.pi * np.outer(k[:, 0, 1], place[:, 1]))
            columns = np.exp(-2j * np.pi * np.outer(place[:, 0], k[0, :, 0]))
            total += -np.sin(chi) * (rows @ columns)
        image = np.fft.irfft2(total * envelope, s=(SIZE, SIZE))
        images.append(image)
    return np.array(images)


def with_noise(images, noise, rng):
    return (images + noise * images.std() * 3 * rng.normal(size=images.shape) + 100).astype(np.float32)
