"""The artifact: expressions of skills, how a skill acts, and how it is saved and loaded. NumPy alone."""
