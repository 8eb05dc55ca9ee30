"""Recipes: train the embedded models, build the artifact, measure everything the README states."""
