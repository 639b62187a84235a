"""Poses of particles: searched, refined, compared."""
