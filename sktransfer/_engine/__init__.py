"""Running frozen networks over images."""
