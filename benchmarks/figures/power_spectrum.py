"""Draw docs/images/simulated_spectrum.png: a simulated untilted image, a real one (EMPIAR-10164), and their spectra.

python benchmarks/figures/power_spectrum.py [STACK [OUTPUT]]
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

from tiltwise.io.acquisition import read_acquisition  # noqa: E402
from tiltwise.params.session import SessionParams  # noqa: E402
from tiltwise.simulate.image_scene import image_tilt  # noqa: E402
from tiltwise.simulate.scene_session import prepare_series  # noqa: E402

ROOT = Path(__file__).parents[2]
STACK = ROOT.parent / "shared" / "data" / "hiv_empiar10164" / "stacks" / "TS_03.mrc"
PICTURE = ROOT / "docs" / "images" / "simulated_spectrum.png"
PIXEL_SIZE, SIZE = 10.0, 360
MEASURED = np.array([1 / 200, 1 / 100, 1 / 60, 1 / 40, 1 / 30, 1 / 24])


def simulated_image(defocus: float, exposure: float) -> np.ndarray:
    """An untilted image of the hiv-lattice scene with the pixel and the defocus of the real one, in counts.

    A pixel of 10 Å is 7.4 physical ones along each side: camera transfer and DQE are those near zero frequency.
    """
    preset = SessionParams.preset("hiv-lattice").model_dump()
    preset["microscope"]["camera"] |= {
        "pixel_size": PIXEL_SIZE, "image_size": SIZE, "dqe": (0.88, 0.0, 0.0), "mtf": (1.0, 0.0, 0.0)
    }  # fmt: skip
    preset["microscope"]["scheme"] |= {"defocus_min": defocus, "defocus_max": defocus + 1, "exposure": exposure}
    whole = prepare_series(SessionParams.model_validate(preset), 1, frames=False)
    tilt = int(np.argmin(np.abs(whole.series.stage_tilt_angle)))
    return image_tilt(whole.scene, whole.series, tilt, whole.params, whole.seed, disturbances=whole.disturbances)


def radial_power(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequency (ring,) in 1/Å and mean power per pixel of the relative contrast, tapered to the border."""
    taper = np.hanning(len(image))[:, None] * np.hanning(len(image))
    contrast = (image / image.mean() - 1) * taper
    power = np.abs(np.fft.fft2(contrast)) ** 2 / (taper**2).sum()
    k = np.fft.fftfreq(len(image))
    ring = np.rint(np.hypot(k[:, None], k) * len(image) / 2).astype(int).ravel()
    mean = np.bincount(ring, power.ravel()) / np.bincount(ring)
    rings = len(image) // 4
    return np.arange(1, rings) * 2 / (len(image) * PIXEL_SIZE), mean[1:rings]


def main(stack: Path = STACK, output: Path = PICTURE) -> None:
    series = read_acquisition(stack).tilt_series
    tilt = int(np.argmin(np.abs(series.stage_tilt_angle)))
    y, x = ((n - SIZE) // 2 for n in series.image_shape)
    real = np.asarray(series.images[tilt][y : y + SIZE, x : x + SIZE], dtype=float)
    exposure = float(series.exposure[tilt]) or 3.0
    made = simulated_image(float(series.nominal_defocus[tilt]), exposure).astype(float)
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), constrained_layout=True)
    for panel, image, title in zip(panels, (real, made), ("EMPIAR-10164, TS_03, 0°", "simulated, 0°"), strict=False):
        contrast = image / image.mean() - 1
        panel.imshow(contrast, cmap="gray", vmin=-0.3, vmax=0.3, origin="lower")
        panel.set(title=title, xticks=[], yticks=[])
    for image, label in ((real, "real"), (made, "simulated")):
        frequency, power = radial_power(image)
        panels[2].semilogy(frequency, power, label=label)
        print(label, np.interp(MEASURED, frequency, power).round(5).tolist())
    panels[2].set(xlabel="frequency, 1/Å", ylabel="power of relative contrast per pixel")
    panels[2].legend(frameon=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=90)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
