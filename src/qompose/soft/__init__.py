"""The mathematics: pure functions of arrays, for NumPy and JAX alike, an equation in every docstring."""
