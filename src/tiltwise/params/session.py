"""A whole simulated session: the specimen, the microscope, and the seed of everything random."""

from pydantic import Field

from tiltwise.params.base import Params
from tiltwise.params.microscope import MicroscopeParams
from tiltwise.params.presets import MICROSCOPES, SCENES
from tiltwise.params.scene import SceneParams


class SessionParams(Params):
    """Specimen and microscope."""

    scene: SceneParams = SceneParams()
    microscope: MicroscopeParams = MicroscopeParams()
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    @staticmethod
    def preset(name: str, seed: int = 0) -> "SessionParams":
        """One of the presets; KeyError for a name that is none."""
        return SessionParams(scene=SCENES[name], microscope=MICROSCOPES[name], seed=seed)
