"""All frameworks, side by side."""
