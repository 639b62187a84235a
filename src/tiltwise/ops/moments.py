"""Moments of the values of a volume."""

import math

import torch


def kurtosis(values: torch.Tensor) -> float:
    """Fourth standardised moment (3 for a normal distribution), plane by plane in float64; nan for a constant."""
    mean = sum(float(plane.double().sum()) for plane in values) / values.numel()
    second = sum(float((plane.double() - mean).square().sum()) for plane in values) / values.numel()
    fourth = sum(float(((plane.double() - mean) ** 4).sum()) for plane in values) / values.numel()
    return fourth / second**2 if second > 0 else math.nan
