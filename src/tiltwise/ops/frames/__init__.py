"""Movie frames refined on the particles: their motion, and what each has left of the signal."""
