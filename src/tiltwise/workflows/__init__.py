"""The few places that join simulation, files, project and report."""
