"""Defocus of a whole series from the Thon rings of all patches of all tilts."""
