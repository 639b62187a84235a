"""What averaged maps show: their resolution, their fit to others."""
