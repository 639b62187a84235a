"""What a simulated session leaves on disk is what a microscope leaves, and the truth reads back."""

import numpy as np
from small_session import SMALL

from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.mrc import read_volume
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.workflows.simulation import write_simulation


def test_recording_imports_as_it_was_taken(simulation):
    recording, truth = simulation
    for path in recording.stacks:
        series = read_acquisition(path).tilt_series
        true = truth.tilt_series[series.name]
        assert series.geometry is None and series.ctf is None and series.defocus_handedness is None
        assert series.pixel_size == SMALL.pixel_size and series.nominal_tilt_axis_angle == 85.0
        for field in ("stage_tilt_angle", "exposure", "pre_exposure", "acquisition_order", "nominal_defocus", "images"):
            assert np.allclose(getattr(series, field), getattr(true, field)), field


def test_truth_reads_back(simulation):
    _, truth = simulation
    assert list(truth.tilt_series) == ["TS_01", "TS_02"]
    assert len(truth.particles) == 2 * SMALL.specimen.particles
    for series in truth.tilt_series.values():
        assert series.geometry.shift.shape == (13, 2) and series.defocus_handedness in (-1, 1)
        assert np.all(series.ctf.defocus_u >= series.ctf.defocus_v)
    assert truth.map.data.shape == truth.mask.data.shape and truth.map.voxel_size == SMALL.pixel_size
    mask = np.array(truth.mask.data)
    assert mask.max() == 1 and mask.min() == 0 and 0.02 < mask.mean() < 0.5


def test_reference_is_the_model_to_40_A_and_no_finer(simulation):
    import torch

    recording, truth = simulation
    given = torch.from_numpy(np.array(read_volume(recording.reference).data))
    model = torch.from_numpy(np.array(truth.map.data))
    n = len(model)
    frequency = torch.arange(n // 2 + 1) / (n * SMALL.pixel_size)
    fsc = fourier_shell_correlation(given, model)
    assert fsc[(frequency > 0) & (frequency < 1 / 45)].min() > 0.99
    power = torch.fft.rfftn(given).abs().square()
    kx, ky, kz = torch.fft.rfftfreq(n), torch.fft.fftfreq(n)[:, None], torch.fft.fftfreq(n)[:, None, None]
    finer = (kx**2 + ky**2 + kz**2).sqrt() / SMALL.pixel_size > 1 / 40 + 2 / (n * SMALL.pixel_size)
    assert float(power[finer].sum() / power.sum()) < 1e-9


def test_bits_do_not_depend_on_the_number_of_workers(tmp_path):
    params = SMALL.model_copy(update={"image_size": 96, "tilt_step": 40.0})
    params = params.model_copy(update={"specimen": params.specimen.model_copy(update={"particles": 3})})
    first = write_simulation(tmp_path / "one", params, series=2, workers=1)
    second = write_simulation(tmp_path / "two", params, series=2, workers=2)
    for a, b in zip((*first.stacks, first.reference), (*second.stacks, second.reference), strict=True):
        assert a.read_bytes() == b.read_bytes()
