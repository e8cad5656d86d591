"""A point mass on a line whose every soft quantity is known: continuous for the skills, finite for the oracle.

x in [-1, 1] lies on a grid; a in [-1, 1] moves it by STEP · a, rounded at random to one of the two nearest points, so
that the grid is no approximation. Skills hold the oracle's Q-functions as networks, fitted by regression.
"""

import functools
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qompose.agents.sql import SQL
from qompose.nets import QFunction, init_perceptron
from qompose.skill.algebra import as_network
from qompose.skill.artifact import Skill
from qompose.soft import finite
from qompose.training.offline import Extraction, extract_policy
from qompose.types import Transition

STATES, ACTIONS, STEP, DISCOUNT = 81, 33, 0.1, 0.95
X = np.linspace(-1.0, 1.0, STATES)
A = (np.arange(ACTIONS) + 0.5) * 2.0 / ACTIONS - 1.0
# Peaks (place, height) of two skills: each prefers a far mode of its own to a near one that both tolerate.
NEAR, FAR, FARTHER = -0.4, 0.4, 0.9
MODES = {
    "first": ((NEAR, 0.8), (FAR, 1.0)),
    "second": ((NEAR, 0.8), (FARTHER, 1.0)),
    # For pairs of all kinds, see `ranking`.
    "low": ((-0.9, 1.0),),
    "high": ((FARTHER, 1.0),),
    "middle": ((0.0, 1.0),),
    "both": ((-0.9, 0.6), (FAR, 1.0)),
}


def move(x, a):
    """Lower neighbour on the grid of where (x, a) leads, and the probability of the upper one."""
    place = np.clip((x + STEP * a + 1.0) / 2.0 * (STATES - 1), 0.0, STATES - 1.0)
    lower = np.minimum(place.astype(int), STATES - 2)
    return lower, place - lower


@functools.cache
def kernel():
    lower, upper_share = move(X[:, None], A[None, :])
    result = np.zeros((STATES, ACTIONS, STATES))
    i, j = np.indices(lower.shape)
    result[i, j, lower] = 1.0 - upper_share
    result[i, j, lower + 1] = upper_share
    return DISCOUNT * result


def reward(modes):
    """Peaks over x, and 0.05 a²: (STATES, ACTIONS)."""
    peaks = np.sum([height * np.exp(-0.5 * ((X - place) / 0.12) ** 2) for place, height in modes], axis=0)
    return peaks[:, None] - 0.05 * A[None, :] ** 2


def reward_at(name, data):
    """The skill's reward of transitions: (N,), float32."""
    x, a = data.observation[:, 0], data.action[:, 0]
    peaks = sum(height * np.exp(-0.5 * ((x - place) / 0.12) ** 2) for place, height in MODES[name])
    return (peaks - 0.05 * a**2).astype(np.float32)


def rows(name, count, seed):
    """States on the grid and actions anywhere: what a broad exploration has seen."""
    rng = np.random.default_rng(seed)
    x, a = X[rng.integers(STATES, size=count)], rng.uniform(-1.0, 1.0, count)
    lower, share = move(x, a)
    after = X[lower + (rng.random(count) < share)]
    f = lambda v: v.astype(np.float32)  # noqa: E731
    data = Transition(f(x)[:, None], f(a)[:, None], f(0.0 * x), f(after)[:, None], f(0.0 * x))
    return data._replace(reward=reward_at(name, data))


def with_replays(skills, seed, count=4000):
    """The same skills with replays of another seed."""
    return [replace(skill, replay=rows(skill.name, count, 1000 + 2 * seed + k)) for k, skill in enumerate(skills)]


def fit(q, temperature, steps=6000):
    """A critic regressed on values (STATES, ACTIONS) of the grid, in units of α."""
    network = init_perceptron(1, 1, 1, (64, 64), layer_norm=True, key=jax.random.key(0))
    level = q.mean()
    critic = QFunction(network, jnp.asarray(level, jnp.float32), jnp.asarray(temperature, jnp.float32))
    adam = optax.adam(optax.linear_schedule(3e-3, 1e-5, steps))
    states, actions = jnp.asarray(X, jnp.float32)[:, None], jnp.asarray(A, jnp.float32)[:, None]
    wanted = jnp.asarray(q, jnp.float32)

    def loss(critic, index):
        found = critic(states[index], jnp.broadcast_to(actions, (len(index), *actions.shape)))
        return jnp.mean(jnp.square((found - wanted[index]) / temperature))

    @jax.jit
    def train(critic):
        def body(k, carry):
            critic, state = carry
            index = jax.random.randint(jax.random.fold_in(jax.random.key(1), k), (8,), 0, STATES)
            change, state = adam.update(jax.grad(loss)(critic, index), state)
            change = eqx.tree_at(lambda c: (c.offset, c.scale), change, (jnp.zeros(()), jnp.zeros(())))
            return eqx.apply_updates(critic, change), state

        return jax.lax.fori_loop(0, steps, body, (critic, adam.init(critic)))[0]

    return train(critic)


def make_skill(name, temperature, seed, count=4000):
    """A skill with the oracle's Q for its own reward, a sampler extracted from it, and a replay."""
    q = finite.optimal_q(reward(MODES[name]), kernel(), temperature)
    critic = fit(q, temperature)
    data = rows(name, count, seed)
    agent = SQL(temperature=temperature, discount=DISCOUNT, hidden=(32,), sampler_learning_rate=3e-3)
    sampler = extract_policy(agent, critic, data.observation, 1, Extraction(steps=500, hidden=(32,)))
    return Skill(
        name=name, algorithm="sql", critic=as_network(critic), sampler=as_network(sampler), temperature=temperature,
        discount=DISCOUNT, observation={"size": 1, "names": None}, action={"size": 1, "low": [-1.0], "high": [1.0]},
        control_period=None, horizon=None, terminates=False, task={"id": "Line", "options": {}},
        estimator={"proposal": "mixture", "particles": 256, "centres": 64, "smoothing": 0.4},
        composition=None, provenance={}, replay=data,
    )  # fmt: skip


def on_grid(q):
    """Values (STATES, ACTIONS) of a skill's or a network's Q."""
    states = np.repeat(X, ACTIONS)[:, None].astype(np.float32)
    actions = np.tile(A, STATES)[:, None].astype(np.float32)
    if isinstance(q, Skill):
        return q.q(states, actions).reshape(STATES, ACTIONS).astype(np.float64)
    values = np.asarray(jax.jit(jax.vmap(q))(states, actions), np.float64)
    return values.reshape(STATES, ACTIONS, *values.shape[1:])


def place(x):
    """Indices on the grid of states."""
    return np.rint((np.asarray(x, np.float64) + 1.0) / 2.0 * (STATES - 1)).astype(int)


def fall(alpha, q, gap):
    """By how much the soft value falls if a gap is taken off q: (STATES,)"""
    return finite.state_value(q, alpha) - finite.state_value(q - gap, alpha)


@dataclass(frozen=True)
class Exact:
    """Two skills on the line, their composition, and what the oracle says of the networks that the skills hold."""

    skills: list
    weights: tuple
    alpha: float
    total: np.ndarray  # Q_Σ of the networks
    correction: np.ndarray
    kappa: np.ndarray
    reward: np.ndarray  # composed

    def regret(self, q):
        """V*_w − V^π of the Boltzmann policy of q, in every state: (STATES,)"""
        optimal = finite.state_value(finite.optimal_q(self.reward, kernel(), self.alpha), self.alpha)
        policy = finite.boltzmann(q, self.alpha)
        value = finite.evaluate(self.reward, kernel(), policy, self.alpha)
        return optimal - finite.policy_value(value, policy, self.alpha)

    def visits(self, q):
        """Discounted visits of states and actions by the Boltzmann policy of q, from every state alike."""
        policy = finite.boltzmann(q, self.alpha)
        chain = np.mean(policy[..., None] * kernel(), axis=1)
        states = np.linalg.solve(np.eye(STATES) - chain.T, np.full(STATES, 1.0 / STATES))
        return states[:, None] * policy / ACTIONS


def solve_exactly(temperatures, weights):
    """The problem of the first two skills with those temperatures."""
    pairs = enumerate(zip(("first", "second"), temperatures, strict=True))
    return solve_for([make_skill(name, t, seed) for seed, (name, t) in pairs], weights)


def solve_for(skills, weights):
    """The problem of composing those skills."""
    temperatures = [skill.temperature for skill in skills]
    q = np.stack([on_grid(skill) for skill in skills])
    alpha = float(np.dot(weights, temperatures))
    value = finite.state_value(q, np.asarray(temperatures))
    rewards = np.stack([reward(MODES[skill.name]) for skill in skills])
    return Exact(
        skills, weights, alpha, finite.combine(weights, q), finite.correction(q, value, weights, kernel(), alpha),
        finite.divergence(q, value, weights, alpha), finite.combine(weights, rewards),
    )  # fmt: skip
