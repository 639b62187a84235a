"""What the CTF of each particle gains over one defocus for each tilt, and over defoci fitted in strips by the axis.

One series of 41 tilts of ±60°, a field of 4000 Å at 2.5 Å/px, octahedral particles of 480 kDa in ice of 600 Å, at true
poses and geometry. Resolution to truth (0.5), Å: `one_defocus_A`, the fit of this program, every particle of an image
at the defocus of depth 0; `strip_A`, each tilt fitted alone in a strip along its axis, applied in the same way;
`strip_particle_A`, that fit with each particle's depth; `particle_A`, the fit of all patches of all tilts, with depth,
at the hand that it found; `truth_A`, the true defoci, with depth. `..._worth` is what part of the particles, under true
defoci, would do as well: the mean over the shells from 15 Å to `truth_A` of the ratio of C² / (1 - C²), C the FSC with
the truth. `defocus_rmse_A` and `strip_rmse_A` are the errors of the two fits.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.particles.chunks import ImageSource
from tiltwise.ops.particles.half_maps import weights_to_begin
from tiltwise.ops.thon_rings.measure import measure_rings, usable_tilts
from tiltwise.params.defocus import DefocusParams
from tiltwise.params.microscope import CameraParams, MicroscopeParams, MotionParams, SchemeParams
from tiltwise.params.scene import IceParams, SceneParams
from tiltwise.params.session import SessionParams
from tiltwise.stages.defocus import defocus
from tiltwise.workflows.defocus_baselines import defocus_of_strip

sys.path.insert(0, str(Path(__file__).parents[1]))
from scene_case import TARGET, Case, averaged, fsc_with_truth, make_case, resolution_of, source_of  # noqa: E402

SEED, BOX = int(os.environ.get("TILTWISE_PARTICLE_CTF_SEED", "0")), 96
COARSEST = 15.0  # Å, the spacing from which particles are counted
SESSION = SessionParams(
    scene=SceneParams(target=TARGET.model_copy(update={"number": 60}), ice=IceParams(thickness=600.0)),
    microscope=MicroscopeParams(
        scheme=SchemeParams(frames=1, defocus_min=15000.0, defocus_max=25000.0),
        camera=CameraParams(pixel_size=2.5, image_size=1600),
        motion=MotionParams(deformation=0.0, magnification=0.0),
    ),
    seed=SEED,
)


def run() -> dict:
    torch.set_grad_enabled(False)
    case = make_case(SESSION, 1, frames=False)
    ((name, truth),) = case.tilt_series.items()
    fitted = defocus(replace(truth, ctf=None, defocus_handedness=None), DefocusParams()).tilt_series
    if fitted.ctf is None:
        raise StageError(f"{name}: the defocus was not determined")
    strip = with_defocus(truth, strip_defocus(truth))
    variants = {
        "one_defocus": replace(fitted, defocus_handedness=None),
        "strip": replace(strip, defocus_handedness=None),
        "strip_particle": strip,
        "particle": fitted,
        "truth": truth,
    }
    curves = {name: fsc_of(case, series) for name, series in variants.items()}
    source, _ = source_of(case, BOX)
    figures = {f"{name}_A": round(resolution_of(fsc, source), 3) for name, fsc in curves.items()}
    figures |= {f"{name}_worth": round(worth(fsc, curves["truth"], source), 3) for name, fsc in curves.items()}
    figures["defocus_rmse_A"] = rmse(fitted, truth)
    figures["strip_rmse_A"] = rmse(strip, truth)
    figures["handedness_correct"] = fitted.defocus_handedness == truth.defocus_handedness
    figures["particles"] = len(case.particles)
    return figures


def strip_defocus(truth: TiltSeries) -> np.ndarray:
    """(tilt,) Å, each tilt alone, from a strip along its axis; at the true angles and hand."""
    spectra = measure_rings(truth, usable_tilts(truth), DefocusParams())
    return defocus_of_strip(spectra, truth.defocus_handedness)


def with_defocus(truth: TiltSeries, mean: np.ndarray) -> TiltSeries:
    """The true series with other mean defoci and the true astigmatism."""
    half = (truth.ctf.defocus_u - truth.ctf.defocus_v) / 2
    return replace(truth, ctf=replace(truth.ctf, defocus_u=mean + half, defocus_v=mean - half))


def fsc_of(case: Case, series: TiltSeries) -> torch.Tensor:
    """(shell,) with the truth, of the average with the CTFs of a series."""
    own = replace(case, tilt_series={series.name: series})
    source, posed = source_of(own, BOX)
    maps, _ = averaged(source, posed, weights_to_begin(source, posed, "critical"))
    return fsc_with_truth(maps, own.map_of_truth(BOX), source)


def worth(fsc: torch.Tensor, best: torch.Tensor, source: ImageSource) -> float:
    """Part of the particles that would do as well under true defoci."""
    width = source.settings.box_size * source.settings.pixel_size
    shells = torch.arange(round(width / COARSEST), int(width / resolution_of(best, source)))
    signal = [c[shells] ** 2 / (1 - c[shells] ** 2) for c in (fsc, best)]
    return float((signal[0] / signal[1]).mean())


def rmse(series: TiltSeries, truth: TiltSeries) -> float:
    error = series.ctf.mean_defocus - truth.ctf.mean_defocus
    return round(float(np.sqrt(np.mean(error**2))), 1)
