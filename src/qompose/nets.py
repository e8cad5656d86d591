"""Networks as equinox modules of one state, and their way to and from the named arrays of a skill.

A composed Q (`COMPOSED`) is one more Q. The kinds form a closed set; nothing is ever imported by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from qompose.soft.compose import combine_values, mix_values, prefer_values, spread_actions
from qompose.soft.quadratic import count_outputs, quadratic, read_form
from qompose.types import QomposeError

NORM_EPSILON = 1e-5


class Perceptron(eqx.Module):
    """Two-input perceptron: `h = relu(norm(o W_o + x W_x + c) + b)`, further hidden layers, a linear output.

    Without `weight_input` there is no x. `norm` is a layer norm without learned scale (the next layer holds it), with
    the bias behind it. Since h is linear in the weights, centring the *weights* centres h: mean subtraction costs
    nothing per particle. A batch of states may be given at once: the particles of all states are then rows of one
    matrix, whose gradients are faster than vmap's.
    """

    observation_mean: Float[Array, " obs"]
    observation_scale: Float[Array, " obs"]
    weight_observation: Float[Array, "obs h0"]
    weight_input: Float[Array, "act h0"] | None
    bias_input: Float[Array, " h0"]  # before the norm: without it a norm would see only the direction of its input
    weights: list[Float[Array, "_ _"]]
    biases: list[Float[Array, " _"]]
    weight_out: Float[Array, "h out"]
    bias_out: Float[Array, " out"]
    layer_norm: bool = eqx.field(static=True)

    def __call__(
        self, observation: Float[Array, "*batch obs"], inputs: Float[Array, "*shape act"] | None = None
    ) -> Float[Array, "..."]:
        """Outputs (*batch, *n, out) for second inputs (*batch, *n, act), n may be none; (*batch, out) without them."""
        mean, scale = lax.stop_gradient((self.observation_mean, self.observation_scale))
        centred = _centre if self.layer_norm else lambda weight: weight
        rows, first = (observation - mean) / scale, self.weight_observation
        if inputs is not None and self.weight_input is not None:
            missing = (1,) * (inputs.ndim - rows.ndim)
            seen = rows.reshape(*rows.shape[:-1], *missing, -1)
            seen = jnp.broadcast_to(seen, (*inputs.shape[:-1], rows.shape[-1]))
            rows, first = jnp.concatenate([seen, inputs], axis=-1), jnp.concatenate([first, self.weight_input])
        shape = rows.shape[:-1]
        hidden = rows.reshape(-1, rows.shape[-1]) @ centred(first) + centred(self.bias_input)
        hidden = self._activate(hidden, self.biases[0])
        for weight, bias in zip(self.weights, self.biases[1:], strict=True):
            hidden = self._activate(hidden @ centred(weight), bias)
        return (hidden @ self.weight_out + self.bias_out).reshape(*shape, -1)

    def _activate(self, hidden: Array, bias: Array) -> Array:
        if self.layer_norm:
            hidden = hidden * _inverse_deviation(hidden)
        return jax.nn.relu(hidden + bias)


def _centre(weight: Array) -> Array:
    return weight - jnp.mean(weight, axis=-1, keepdims=True)


def _inverse_deviation(hidden: Array) -> Array:
    """1/√(mean h² + ε). Means are products with a constant matrix: row reductions are many times slower on a CPU."""
    size = hidden.shape[-1]
    mean = jnp.square(hidden) @ jnp.full((size, 1), 1.0 / size, hidden.dtype)
    return lax.rsqrt(mean + NORM_EPSILON) @ jnp.ones((1, size), hidden.dtype)


def init_perceptron(
    observation_size: int,
    input_size: int,
    output_size: int,
    hidden: Sequence[int],
    *,
    layer_norm: bool = False,
    key: PRNGKeyArray,
) -> Perceptron:
    """Fresh weights, uniform in ±1/√fan-in; no second input if `input_size` is 0. The key is consumed."""
    keys = iter(jax.random.split(key, len(hidden) + 2))

    def draw(fan_in: int, shape: tuple[int, ...]) -> Array:
        bound = fan_in**-0.5
        return jax.random.uniform(next(keys), shape, minval=-bound, maxval=bound)

    fan_in = observation_size + input_size
    first = draw(fan_in, (fan_in, hidden[0]))
    return Perceptron(
        observation_mean=jnp.zeros(observation_size),
        observation_scale=jnp.ones(observation_size),
        weight_observation=first[:observation_size],
        weight_input=first[observation_size:] if input_size else None,
        bias_input=draw(fan_in, (hidden[0],)),
        weights=[draw(a, (a, b)) for a, b in pairwise(hidden)],
        biases=[jnp.zeros(size) for size in hidden],
        weight_out=draw(hidden[-1], (hidden[-1], output_size)),
        bias_out=jnp.zeros(output_size),
        layer_norm=layer_norm,
    )


class QFunction(eqx.Module):
    """Q(s, a) in raw reward units: `offset + scale · network(s, a)`; the constants are set once, never learned."""

    network: Perceptron
    offset: Float[Array, ""]
    scale: Float[Array, ""]

    def __call__(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*shape act"]
    ) -> Float[Array, "*shape"]:
        """Values of any number of actions in one state, or in each state of a batch."""
        offset, scale = lax.stop_gradient((self.offset, self.scale))
        return offset + scale * self.network(observation, action)[..., 0]


class QuadraticQ(eqx.Module):
    """Q(s, a) = offset + scale · (V(s) − ½ |L(s)ᵀ (a − μ(s))|²), all three heads of one network (Gu et al. 2016)."""

    network: Perceptron
    offset: Float[Array, ""]
    scale: Float[Array, ""]

    def __call__(self, observation: Float[Array, " obs"], action: Float[Array, "*n act"]) -> Float[Array, "*n"]:
        """Values of any number of actions in one state."""
        offset, scale = lax.stop_gradient((self.offset, self.scale))
        rows = action.reshape(-1, action.shape[-1])
        return offset + scale * quadratic(*self.read(observation), rows).reshape(action.shape[:-1])

    def read(
        self, observation: Float[Array, " obs"]
    ) -> tuple[Float[Array, ""], Float[Array, " act"], Float[Array, "act act"]]:
        """V, μ and L of one state; V and L in the network's units."""
        return read_form(self.network(observation))

    def value(self, observation: Float[Array, " obs"]) -> Float[Array, ""]:
        """max_a Q(s, a), in raw reward units."""
        offset, scale = lax.stop_gradient((self.offset, self.scale))
        return offset + scale * self.read(observation)[0]

    def best(self, observation: Float[Array, " obs"]) -> Float[Array, " act"]:
        """argmax_a Q(s, a) = μ(s)."""
        return self.read(observation)[1]


class _ComposedQ(eqx.Module):
    """An expression of several Q's, which may go on learning as one."""

    members: list[AnyQ]

    @property
    def scale(self) -> Float[Array, ""]:
        """The unit in which errors are measured: that of the first member's network."""
        return self.members[0].scale


class SumQ(_ComposedQ):
    """Q_Σ = Σ w_i Q_i (paper, eq 6): a composed Q is one more Q. For what it bounds see `combine_values`."""

    weights: tuple[float, ...] = eqx.field(static=True)

    def __call__(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*shape act"]
    ) -> Float[Array, "*shape"]:
        """Values of any number of actions in one state, or in each state of a batch."""
        return combine_values([member(observation, action) for member in self.members], self.weights)


class OrQ(_ComposedQ):
    """Q_or = α log Σ w_i exp(Q_i/α): `mix_values` as one more Q."""

    weights: tuple[float, ...] = eqx.field(static=True)
    temperature: float = eqx.field(static=True, converter=float)

    def __call__(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*shape act"]
    ) -> Float[Array, "*shape"]:
        """Values of any number of actions in one state, or in each state of a batch."""
        values = [member(observation, action) for member in self.members]
        return mix_values(values, self.weights, self.temperature)


class PreferQ(_ComposedQ):
    """Q_low + β log σ((Q_high − max_a Q_high + ε)/τ): `prefer_values` as one more Q.

    max_a Q_high is the highest among `candidates` fixed actions, so that the value of an action is the same whatever
    others are asked for with it.
    """

    # The members are high and low.
    slack: float = eqx.field(static=True, converter=float)
    width: float = eqx.field(static=True, converter=float)
    strength: float = eqx.field(static=True, converter=float)
    candidates: int = eqx.field(static=True)

    def __call__(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*shape act"]
    ) -> Float[Array, "*shape"]:
        """Values of any number of actions in one state, or in each state of a batch."""
        high, low = (member(observation, action) for member in self.members)
        batch = observation.shape[:-1]
        fixed = spread_actions(self.candidates, action.shape[-1]).astype(np.float32)
        tried = self.members[0](observation, jnp.asarray(np.broadcast_to(fixed, (*batch, *fixed.shape))))
        highest = lax.stop_gradient(jnp.max(tried, axis=-1)).reshape(*batch, *(1,) * (high.ndim - len(batch)))
        return prefer_values(high, highest, low, self.slack, self.width, self.strength)


class CorrectedQ(_ComposedQ):
    """Q_w = Σ w_i Q_i − C_w: a composed Q without what the skills' later disagreement makes it overestimate.

    The optimal Q of the composed task if the Q_i are those of theirs and C_w is exact; with learned ones no bound.
    """

    # The members are the sum and the correction.

    def __call__(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*shape act"]
    ) -> Float[Array, "*shape"]:
        """Values of any number of actions in one state, or in each state of a batch."""
        total, correction = (member(observation, action) for member in self.members)
        return total - correction


class GpiQ(_ComposedQ):
    """max_i Q^{π_i}_w: the best of what following each of several policies is worth (Hunt et al. 2019).

    A lower bound of Q* where the Q^{π_i}_w are exact; of learned ones the maximum is biased upwards.
    """

    # One member for each policy.

    def __call__(
        self, observation: Float[Array, "*batch obs"], action: Float[Array, "*shape act"]
    ) -> Float[Array, "*shape"]:
        """Values of any number of actions in one state, or in each state of a batch."""
        return jnp.max(jnp.stack([member(observation, action) for member in self.members]), axis=0)


class Sampler(eqx.Module):
    """u = f(s, ξ), a = tanh u, ξ ~ N(0, I): an implicit density that Stein descent shapes (Haarnoja et al. 2017)."""

    network: Perceptron

    def __call__(
        self, observation: Float[Array, "*batch obs"], noise: Float[Array, "*shape act"]
    ) -> Float[Array, "*shape act"]:
        """Pre-squash particles, one for each row of noise; observations may be a batch."""
        return self.network(observation, noise)


class Actor(eqx.Module):
    """a = tanh f(s): a deterministic policy (Lillicrap et al. 2015)."""

    network: Perceptron

    def __call__(self, observation: Float[Array, " obs"]) -> Float[Array, " act"]:
        """The action of one state, in [-1, 1]."""
        return jnp.tanh(self.network(observation))


AnyQ = QFunction | QuadraticQ | SumQ | OrQ | PreferQ | CorrectedQ | GpiQ
Module = AnyQ | Sampler | Actor
COMPOSED: dict[str, type] = {"sum": SumQ, "or": OrQ, "prefer": PreferQ, "corrected": CorrectedQ, "gpi": GpiQ}
KINDS: dict[type, str] = {QFunction: "critic", QuadraticQ: "quadratic", Sampler: "sampler", Actor: "actor"}


def init_quadratic(
    observation_size: int, action_size: int, hidden: Sequence[int], *, layer_norm: bool, key: PRNGKeyArray
) -> QuadraticQ:
    """A fresh quadratic Q in units of one. The key is consumed."""
    network = init_perceptron(observation_size, 0, count_outputs(action_size), hidden, layer_norm=layer_norm, key=key)
    return QuadraticQ(network, offset=jnp.zeros(()), scale=jnp.ones(()))


def set_observation_scale(module: Any, mean: Array, scale: Array) -> Any:
    """Return a module of one network that sees observations as (o − mean)/scale."""
    return eqx.tree_at(lambda m: (m.network.observation_mean, m.network.observation_scale), module, (mean, scale))


def describe(module: Module) -> dict[str, Any]:
    """The module's specification, as a skill's manifest holds it."""
    if isinstance(module, _ComposedQ):
        kind = next(kind for kind, composed in COMPOSED.items() if isinstance(module, composed))
        fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
        members = [describe(member) for member in fields.pop("members")]
        numbers = {name: list(value) if name == "weights" else value for name, value in fields.items()}
        return {"kind": kind, **numbers, "of": members}
    network = module.network
    hidden = [int(bias.shape[0]) for bias in network.biases]
    return {"kind": KINDS[type(module)], "hidden": hidden, "layer_norm": network.layer_norm}


def to_arrays(module: Module) -> dict[str, np.ndarray]:
    """The module's numbers under the names of a skill's file."""
    if isinstance(module, _ComposedQ):
        parts = enumerate(to_arrays(member) for member in module.members)
        return {f"{index}/{name}": array for index, part in parts for name, array in part.items()}
    network = module.network
    arrays: dict[str, Any] = {
        "observation_mean": network.observation_mean,
        "observation_scale": network.observation_scale,
        "weight_observation": network.weight_observation,
        "bias_input": network.bias_input,
        "weight_out": network.weight_out,
        "bias_out": network.bias_out,
    }
    arrays |= {f"weight_{k + 1}": weight for k, weight in enumerate(network.weights)}
    arrays |= {f"bias_{k}": bias for k, bias in enumerate(network.biases)}
    if network.weight_input is not None:
        arrays["weight_input"] = network.weight_input
    if isinstance(module, QFunction | QuadraticQ):
        arrays |= {"offset": module.offset, "scale": module.scale}
    return {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}


def from_arrays(specification: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """Rebuild the module that `describe` and `to_arrays` took apart."""
    kind = specification["kind"]
    if kind in COMPOSED:
        members = []
        for index, child in enumerate(specification["of"]):
            prefix = f"{index}/"
            part = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
            members.append(from_arrays(child, part))
        numbers: dict[str, Any] = {name: value for name, value in specification.items() if name not in ("kind", "of")}
        if "weights" in numbers:
            numbers["weights"] = tuple(float(weight) for weight in numbers["weights"])
        return COMPOSED[kind](members=members, **numbers)
    if kind not in KINDS.values():
        known = ", ".join([*KINDS.values(), *COMPOSED])
        raise QomposeError(f"network kind {kind!r} is unknown; this version knows {known}")
    depth = len(specification["hidden"])
    array = {name: jnp.asarray(value) for name, value in arrays.items()}
    network = Perceptron(
        observation_mean=array["observation_mean"],
        observation_scale=array["observation_scale"],
        weight_observation=array["weight_observation"],
        weight_input=array.get("weight_input"),
        bias_input=array["bias_input"],
        weights=[array[f"weight_{k}"] for k in range(1, depth)],
        biases=[array[f"bias_{k}"] for k in range(depth)],
        weight_out=array["weight_out"],
        bias_out=array["bias_out"],
        layer_norm=bool(specification["layer_norm"]),
    )
    if kind == "sampler":
        return Sampler(network)
    if kind == "actor":
        return Actor(network)
    if kind == "quadratic":
        return QuadraticQ(network, offset=array["offset"], scale=array["scale"])
    return QFunction(network, offset=array["offset"], scale=array["scale"])
