"""Named scenes, each like a specimen that people image."""

from tiltwise.params.microscope import CameraParams, LensParams, MicroscopeParams, MotionParams, SchemeParams
from tiltwise.params.scene import (
    ContaminationParams,
    CrowdParams,
    GoldParams,
    IceParams,
    LatticeParams,
    MembraneParams,
    SceneParams,
    TargetParams,
)

SCENES: dict[str, SceneParams] = {
    # Purified bacterial ribosomes in thin ice, as in EMPIAR-10304.
    "ribosome-70s": SceneParams(
        target=TargetParams(number=150, mass=2.3e6, diameter=250.0, symmetry="C1"),
        ice=IceParams(thickness=1200.0, incline=3.0),
        gold=GoldParams(number=12),
        contamination=ContaminationParams(number=2),
    ),
    # Immature virus-like particles of HIV-1: the hexagonal lattice of CA-SP1 under a membrane, as in EMPIAR-10164.
    "hiv-lattice": SceneParams(
        target=TargetParams(
            site="lattice", number=0, mass=1.3e5, diameter=100.0, width=66.0, symmetry="C6", tilt_spread=2.0, gap=3.0
        ),
        ice=IceParams(thickness=1800.0, incline=3.0),
        membranes=MembraneParams(spheres=6, radius_min=470.0, radius_max=670.0),
        lattice=LatticeParams(),
        gold=GoldParams(number=10),
    ),
    # Apoferritin, dense in very thin ice.
    "apoferritin": SceneParams(
        target=TargetParams(number=400, mass=4.8e5, diameter=130.0, symmetry="O", gap=10.0),
        ice=IceParams(thickness=500.0, incline=2.0),
        gold=GoldParams(number=10),
    ),
    # A purified enzyme at the lower end of what averaging does well.
    "small-300kda": SceneParams(
        target=TargetParams(number=500, mass=3e5, diameter=115.0, symmetry="D3", gap=10.0),
        ice=IceParams(thickness=700.0, incline=3.0),
        gold=GoldParams(number=10),
    ),
    # A lamella of a cell: ribosomes, some of them on membranes' sides, among everything else.
    "crowded-cell": SceneParams(
        target=TargetParams(number=60, mass=2.3e6, diameter=250.0, gap=4.0),
        ice=IceParams(thickness=1500.0, incline=10.0, bend=2e5, margin=0.0),
        crowd=CrowdParams(fraction=0.2),
        membranes=MembraneParams(spheres=2, radius_min=300.0, radius_max=500.0, sheets=1),
        contamination=ContaminationParams(number=3),
    ),
}
"""By name: `tiltwise simulate --preset NAME`."""

MICROSCOPES: dict[str, MicroscopeParams] = {
    # EMPIAR-10304: 300 kV, 2.1 Å, some 3 e⁻/Å² a tilt.
    "ribosome-70s": MicroscopeParams(
        scheme=SchemeParams(exposure=2.9, frames=8, defocus_min=25000.0, defocus_max=40000.0),
        camera=CameraParams(pixel_size=2.1, image_size=2048),
    ),
    # EMPIAR-10164: 300 kV, 1.35 Å, 120 e⁻/Å² over 41 tilts, dose-symmetric.
    "hiv-lattice": MicroscopeParams(
        scheme=SchemeParams(exposure=2.93, frames=8, defocus_min=15000.0, defocus_max=45000.0),
        camera=CameraParams(pixel_size=1.35, image_size=2048),
    ),
    "apoferritin": MicroscopeParams(
        scheme=SchemeParams(exposure=3.0, frames=10, defocus_min=12000.0, defocus_max=25000.0),
        camera=CameraParams(pixel_size=1.35, image_size=2048),
    ),
    "small-300kda": MicroscopeParams(
        scheme=SchemeParams(exposure=3.0, frames=10, defocus_min=15000.0, defocus_max=30000.0),
        camera=CameraParams(pixel_size=1.35, image_size=2048),
    ),
    # Thick, and bent by the mill: more motion, energy spread of a coarser filter.
    "crowded-cell": MicroscopeParams(
        lens=LensParams(energy_spread=0.7),
        scheme=SchemeParams(tilt_max=54.0, exposure=3.3, frames=8, defocus_min=25000.0, defocus_max=50000.0),
        camera=CameraParams(pixel_size=3.4, image_size=1024),
        motion=MotionParams(local=5.0, deformation=30.0),
    ),
}
"""The microscope of each preset: optics, scheme, camera and motion."""
