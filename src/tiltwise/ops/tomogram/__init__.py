"""From aligned images to a volume."""
