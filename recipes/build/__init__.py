"""Recipes that build artifacts."""
