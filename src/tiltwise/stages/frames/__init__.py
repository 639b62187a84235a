"""Refine motion and weights of movie frames on the particles, and sum the frames anew (the method: ops/frames)."""

from tiltwise.stages.frames.stage import FramesResult, frames

__all__ = ["FramesResult", "frames"]
