"""Align particles against the raw tilt images and average them, in two halves that never meet."""

from tiltwise.stages.refine.stage import RefineResult, refine

__all__ = ["RefineResult", "refine"]
