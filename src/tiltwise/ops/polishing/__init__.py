"""Geometry and CTF refined on the particles."""
