"""Neural networks, loss functions and the training loop, in plain NumPy."""
