"""Sort particles into classes of different structure, by the likelihood of their tilt images."""

from tiltwise.stages.classify.stage import ClassifyResult, classify

__all__ = ["ClassifyResult", "classify"]
