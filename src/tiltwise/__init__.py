"""Cryo-electron tomography and subtomogram averaging, from tilt images to maps whose resolution can be believed."""
