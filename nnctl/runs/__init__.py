"""Runs: building a network from a configuration, training, saving, resuming and evaluating it."""
