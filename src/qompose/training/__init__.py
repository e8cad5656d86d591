"""Training: online from an environment, offline from logged states."""
