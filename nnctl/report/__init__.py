"""HTML reports of runs: curves, mistakes, layers, and a canvas to draw digits on."""
