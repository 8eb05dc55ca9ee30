"""Recipes that measure one thing each."""
