"""Hyperparameter sweeps: search space, trials, worker processes, journal and results."""
