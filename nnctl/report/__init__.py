"""Runs as a page: curves, mistakes, layers, and a canvas to draw digits on."""
