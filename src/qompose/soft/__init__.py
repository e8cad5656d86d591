"""The mathematics: pure functions of arrays, an equation in every docstring. NumPy and JAX alike; `finite`: NumPy."""
