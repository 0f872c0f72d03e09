"""The mathematics: networks, their losses and their training. It knows NumPy and nothing else."""
