"""Datasets: known files and mirrors, downloads, IDX files, image files, splits."""
