"""A small random problem with all that the exact oracle says about it."""

import numpy as np

from qompose.soft import finite
from qompose.soft.value import log_weights

STATES, ACTIONS, SKILLS = 6, 5, 3


class Problem:
    """A random finite problem, three skills with unequal temperatures, weights that do not sum to one."""

    def __init__(self, seed, deterministic=False):
        rng = np.random.default_rng(seed)
        self.kernel = 0.9 * rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
        if deterministic:
            self.kernel = 0.9 * np.eye(STATES)[rng.integers(STATES, size=(STATES, ACTIONS))]
        self.kernel[-1] = 0.0  # the last state is terminal
        self.temperatures, self.weights = np.array([0.3, 0.7, 1.1]), np.array([0.5, 0.4, 0.6])
        self.alpha = float(self.weights @ self.temperatures)
        reward = rng.normal(size=(SKILLS, STATES, ACTIONS))
        self.q = finite.optimal_q(reward, self.kernel[None], self.temperatures)
        self.value = finite.state_value(self.q, self.temperatures)
        self.total = finite.combine(self.weights, self.q)
        self.flat = np.zeros((STATES, ACTIONS))  # log density of the draws: uniform
        self.log_weight = log_weights(self.total, self.flat, self.alpha)
        self.kappa = finite.divergence(self.q, self.value, self.weights, self.alpha)
        self.c = finite.correction(self.q, self.value, self.weights, self.kernel, self.alpha)
        self.policy = finite.boltzmann(self.total, self.alpha)

    def regress(self, of_next):
        """E_{s'} of a target computed in s' with discount one: `kernel` holds the discount of each step."""
        return finite.expect_next(self.kernel, of_next)
