"""The parameters of a session small enough for tests."""

from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams

SMALL = SimulateParams(
    pixel_size=6.0,
    image_size=128,
    tilt_step=10.0,
    exposure=10.0,
    motion_b_factor=100.0,
    specimen=SpecimenParams(molecular_weight=4e5, diameter=120.0, thickness=350.0, particles=12, margin=10.0),
    errors=ErrorParams(shift_step=3.0),
)
