"""The geometry of a tilt series from projections, beads and patches."""
