"""Tests of `d3hr_datasets.copies`."""
