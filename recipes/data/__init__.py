"""Real images for the recipes."""
