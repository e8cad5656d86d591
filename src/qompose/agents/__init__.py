"""The algorithms, one file each, in the same order: hyperparameters, state, losses, improve, update."""
