"""Images of particles, what stands for their exposure and noise, and their averages."""
