"""When: recipe, folders, provenance, resume, executors."""
