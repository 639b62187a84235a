"""Where particles are: templates and decoys, spheres, filaments, surfaces."""
