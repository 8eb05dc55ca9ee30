"""What is wrong with the settings of a recipe, or missing."""

from __future__ import annotations


class RecipeError(ValueError):
    """A recipe was given settings it cannot run with, or something it needs is missing."""
