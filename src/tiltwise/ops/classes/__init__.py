"""Particles under several structures."""
