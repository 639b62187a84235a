"""Refine geometry and CTF of tilt series on the particles in them, with the poses, all against the raw tilts."""

from tiltwise.stages.polish.stage import PolishResult, polish

__all__ = ["PolishResult", "polish"]
