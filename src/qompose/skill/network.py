"""The networks that a skill may hold: a closed set of kinds, their arrays, and their forward pass in NumPy.

A leaf is a perceptron of the observation o and, in a critic and a sampler, of a vector x: the action or the noise ξ.

    h = (o − observation_mean)/observation_scale @ weight_observation + x @ weight_input + bias_input
    h = relu(LN(h) + bias_0), then h = relu(LN(h @ weight_k) + bias_k), last y = h @ weight_out + bias_out
    critic: Q = offset + scale · y (raw reward units); sampler: u = y, a = tanh u; actor: a = tanh y
    quadratic: y = V, μ, L as `soft.quadratic` reads them; Q = offset + scale · (V − ½ |Lᵀ(a − μ)|²), a = μ

LN(h) = (h − mean)/√(var + 1e-5) over the units, without learned scale; the identity where `layer_norm` is false.
`sum` is Σ w_i Q_i over critics or quadratics; `candidates` are draws of several samplers. `or` and `prefer` are what
`soft.compose` says, max_a Q_high the highest among so many fixed actions; `gpi` is the highest of several critics.
The arrays of child i are `i/NAME`.
Which kinds a skill holds follows from its algorithm: `KINDS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from qompose.skill.expression import MOST_LEAVES
from qompose.soft.compose import mix_values, prefer_values, spread_actions
from qompose.soft.quadratic import combine_forms, count_outputs, maximise_in_box, quadratic, read_form
from qompose.types import QomposeError, show

NORM_EPSILON = 1e-5
MOST_LAYERS = 8
MOST_UNITS = 4096
DEEPEST = 7  # a level takes two of the manifest's
MOST_CANDIDATES = 4096
MOST_NUMBERS = 2**20  # in the fixed actions of all `prefer`s of a network
# Rows of one forward pass among the candidates of a `prefer`: a long list of states must not fill the memory.
ROWS = 16384

# What may stand in a role: the leaf first, then the nodes above leaves, if there are any. The policy of NAF is the
# maximum of its critic, so that nothing stands in the other role. `corrected` is a sum and the correction taken off it.
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "sql": {"critic": ("critic", "sum", "or", "prefer", "corrected", "gpi"), "sampler": ("sampler", "candidates")},
    "ddpg": {"critic": ("critic", "sum", "prefer"), "sampler": ("actor",)},
    "naf": {"critic": ("quadratic", "sum"), "sampler": ()},
}

# The fields of a node beside its kind and its children, and the range of each number.
FIELDS: dict[str, tuple[str, ...]] = {
    "sum": ("weights",),
    "or": ("weights", "temperature"),
    "prefer": ("slack", "width", "strength", "candidates"),
}
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (1e-8, 1e8), "slack": (1e-9, 1e9), "width": (1e-9, 1e9), "strength": (1e-9, 1e9),
}  # fmt: skip


class Network(NamedTuple):
    """A specification, as it stands in a manifest, and its float32 arrays by name."""

    spec: dict[str, Any]
    arrays: Mapping[str, np.ndarray]

    def feed(self, digest: Any) -> None:
        """Give specification and arrays to a running hash of `hashlib`."""
        digest.update(json.dumps(self.spec, sort_keys=True).encode())
        for name in sorted(self.arrays):
            digest.update(name.encode() + np.ascontiguousarray(self.arrays[name]).tobytes())


# --------------------------------------------------------------------------------------------------- specification


def check_spec(spec: Any, role: str, algorithm: str) -> None:
    """Refuse a specification that is not, in every field, one of the closed set for the role critic or sampler."""
    kinds = KINDS[algorithm][role]
    if not kinds:
        if spec is not None:
            raise QomposeError(f"{role}: must be null, not {show(spec)}; {algorithm} acts by its critic alone")
        return
    leaves = _check_node(spec, kinds, role, 1)
    if leaves > MOST_LEAVES:
        raise QomposeError(f"{role}.of: {leaves} leaf networks, at most {MOST_LEAVES} are allowed")


def _check_node(spec: Any, kinds: tuple[str, ...], field: str, depth: int) -> int:
    if not isinstance(spec, dict):
        raise QomposeError(f"{field}: must be an object with a kind, not {show(spec)}")
    kind = spec.get("kind")
    if kind not in kinds:
        raise QomposeError(f"{field}.kind: must be one of {', '.join(kinds)}, not {show(kind)}")
    leaf = kind == kinds[0]
    wanted = ("kind", "hidden", "layer_norm") if leaf else ("kind", "of", *FIELDS.get(kind, ()))
    for name in spec:
        if name not in wanted:
            raise QomposeError(f"{field}.{show(name)}: does not belong to kind {kind}; remove it")
    for name in wanted:
        if name not in spec:
            raise QomposeError(f"{field}.{name}: is missing")
    if leaf:
        _check_leaf(spec, field)
        return 1
    if depth >= DEEPEST:
        raise QomposeError(f"{field}: is nested deeper than {DEEPEST}")
    children = spec["of"]
    if not isinstance(children, list) or not 1 <= len(children) <= MOST_LEAVES:
        raise QomposeError(f"{field}.of: must be a list of 1 to {MOST_LEAVES} networks")
    _check_numbers(spec, kind, signed=kinds[0] != "quadratic", field=field)
    if kind == "corrected" and [isinstance(c, dict) and c.get("kind") for c in children] != ["sum", kinds[0]]:
        raise QomposeError(f"{field}.of: must be a sum and its correction, two networks of kinds sum and {kinds[0]}")
    if kind == "gpi" and any(not isinstance(c, dict) or c.get("kind") != kinds[0] for c in children):
        raise QomposeError(f"{field}.of: must be networks of kind {kinds[0]}, one for each policy")
    return sum(_check_node(child, kinds, f"{field}.of[{index}]", depth + 1) for index, child in enumerate(children))


def _check_leaf(spec: dict[str, Any], field: str) -> None:
    hidden = spec["hidden"]
    if not isinstance(hidden, list) or not 1 <= len(hidden) <= MOST_LAYERS:
        raise QomposeError(f"{field}.hidden: must be a list of 1 to {MOST_LAYERS} sizes, not {show(hidden)}")
    if not all(type(size) is int and 1 <= size <= MOST_UNITS for size in hidden):
        raise QomposeError(f"{field}.hidden: sizes must be integers from 1 to {MOST_UNITS}, not {show(hidden)}")
    if not isinstance(spec["layer_norm"], bool):
        raise QomposeError(f"{field}.layer_norm: must be true or false, not {show(spec['layer_norm'])}")


def _check_numbers(spec: dict[str, Any], kind: str, signed: bool, field: str) -> None:
    if "weights" in spec:
        _check_weights(spec["weights"], len(spec["of"]), signed and kind == "sum", f"{field}.weights")
    if kind == "or" and not abs(sum(spec["weights"]) - 1.0) <= 1e-6:
        raise QomposeError(f"{field}.weights: must sum to one, not {sum(spec['weights']):g}")
    if kind == "prefer" and len(spec["of"]) != 2:
        raise QomposeError(f"{field}.of: must be 2 networks, what is preferred and what comes second")
    for name, (low, high) in RANGES.items():
        if name in spec and not (_is_number(spec[name]) and low <= spec[name] <= high):
            raise QomposeError(f"{field}.{name}: must be a number from {low:g} to {high:g}, not {show(spec[name])}")
    count = spec.get("candidates", 1)
    if type(count) is not int or not 1 <= count <= MOST_CANDIDATES:
        raise QomposeError(f"{field}.candidates: must be an integer from 1 to {MOST_CANDIDATES}, not {show(count)}")


def _check_weights(weights: Any, count: int, signed: bool, field: str) -> None:
    if not isinstance(weights, list) or len(weights) != count:
        raise QomposeError(f"{field}: must be a list of {count} numbers, one for each network")
    for weight in weights:
        if not _is_number(weight) or not 1e-9 <= (abs(weight) if signed else weight) <= 1e9:
            either = ", of either sign" if signed else ""
            raise QomposeError(f"{field}: a weight must be a number from 1e-9 to 1e9{either}, not {show(weight)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def expected_arrays(
    spec: dict[str, Any], observation_size: int, action_size: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of every array that the specification asks for."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for prefix, leaf, _ in leaves_of(spec):
        hidden, kind = leaf["hidden"], leaf["kind"]
        output_size = {"critic": 1, "quadratic": count_outputs(action_size)}.get(kind, action_size)
        shapes: dict[str, tuple[int, ...]] = {
            "observation_mean": (observation_size,),
            "observation_scale": (observation_size,),
            "weight_observation": (observation_size, hidden[0]),
            "bias_input": (hidden[0],),
        }
        if kind in ("critic", "sampler"):
            shapes["weight_input"] = (action_size, hidden[0])
        shapes |= {f"weight_{k}": (hidden[k - 1], hidden[k]) for k in range(1, len(hidden))}
        shapes |= {f"bias_{k}": (size,) for k, size in enumerate(hidden)}
        shapes |= {"weight_out": (hidden[-1], output_size), "bias_out": (output_size,)}
        if kind in ("critic", "quadratic"):
            shapes |= {"offset": (), "scale": ()}
        expected |= {prefix + name: ("float32", shape) for name, shape in shapes.items()}
    return expected


def _nodes_of(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec
    for child in spec.get("of", ()):
        yield from _nodes_of(child)


def leaves_of(
    spec: dict[str, Any], prefix: str = "", weight: float = 1.0, whole: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Prefix of the array names, specification and total weight of every leaf; nodes of kinds `whole` are leaves, too.

    The weight is that of a linear form: it says nothing below an `or`, a `prefer` or a `gpi`.
    """
    if "of" not in spec or spec["kind"] in whole:
        yield prefix, spec, weight
        return
    weights = [1.0, -1.0] if spec["kind"] == "corrected" else spec.get("weights", [1.0] * len(spec["of"]))
    for index, (child, share) in enumerate(zip(spec["of"], weights, strict=True)):
        yield from leaves_of(child, f"{prefix}{index}/", weight * share, whole)


def check_arrays(network: Network, observation_size: int, action_size: int) -> dict[str, np.ndarray]:
    """The arrays, read-only, if they are exactly those of the specification, finite, and all scales are positive."""
    tried = sum(node.get("candidates", 0) for node in _nodes_of(network.spec)) * action_size
    if tried > MOST_NUMBERS:
        raise QomposeError(
            f"candidates: all prefers try {tried} numbers at once (times the action size); at most {MOST_NUMBERS}"
        )
    expected = expected_arrays(network.spec, observation_size, action_size)
    for name in network.arrays:
        if name not in expected:
            raise QomposeError(f"tensor {show(name)}: does not belong to the network; remove it")
    result = {}
    for name, (dtype, shape) in expected.items():
        if name not in network.arrays:
            raise QomposeError(f"tensor {name!r}: is missing")
        array = np.asarray(network.arrays[name])
        if array.dtype != dtype or array.shape != shape:
            raise QomposeError(f"tensor {name!r}: must be {dtype} {list(shape)}, not {array.dtype} {list(array.shape)}")
        if array.flags.writeable:
            array = array.copy()
            array.flags.writeable = False
        if not np.isfinite([array.min(), array.max()]).all():
            raise QomposeError(f"tensor {name!r}: holds NaN or infinity; only finite numbers are allowed")
        if name.rpartition("/")[2] in ("scale", "observation_scale") and not array.min() > 0.0:
            raise QomposeError(f"tensor {name!r}: a scale must be positive")
        result[name] = array
    return result


# -------------------------------------------------------------------------------------------------------- forward


class Perceptron:
    """One leaf network, its arrays made ready to be used many times.

    h is linear in the weights, so that centring the *weights* once centres h: LN needs no mean when acting.
    """

    def __init__(self, spec: dict[str, Any], arrays: Mapping[str, np.ndarray], prefix: str = "") -> None:
        def get(name: str) -> np.ndarray:
            return np.ascontiguousarray(arrays[prefix + name])

        def centred(name: str) -> np.ndarray:
            weight = get(name)
            return _centre(weight) if spec["layer_norm"] else weight

        count = len(spec["hidden"])
        self.layer_norm: bool = spec["layer_norm"]
        self.mean, self.scale = get("observation_mean"), get("observation_scale")
        self.weight_observation, self.bias_input = centred("weight_observation"), centred("bias_input")
        self.weight_input = centred("weight_input") if spec["kind"] in ("critic", "sampler") else np.empty((0, 0))
        self.biases = [get(f"bias_{k}") for k in range(count)]
        self.weights = [centred(f"weight_{k}") for k in range(1, count)]
        self.weight_out, self.bias_out = get("weight_out"), get("bias_out")
        self.epsilon = np.float32(NORM_EPSILON)
        self.inverse_sizes = [np.float32(1.0 / size) for size in spec["hidden"]]

    def read(self, observation: np.ndarray) -> np.ndarray:
        """The observation's part of the first layer, once for all inputs. (batch, obs) -> (batch, 1, h0)"""
        return (((observation - self.mean) / self.scale) @ self.weight_observation + self.bias_input)[:, None, :]

    def __call__(self, read: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Outputs for inputs (batch, n, act), given what `read` returned. -> (batch, n, out)"""
        batch, n, size = inputs.shape
        first = inputs.reshape(-1, size) @ self.weight_input
        return self._finish((first.reshape(batch, n, -1) + read).reshape(batch * n, -1)).reshape(batch, n, -1)

    def alone(self, observation: np.ndarray) -> np.ndarray:
        """Outputs of a perceptron without a second input. (batch, obs) -> (batch, out)"""
        return self._finish(self.read(observation)[:, 0, :])

    def _finish(self, hidden: np.ndarray) -> np.ndarray:
        """What follows the first layer; overwrites its argument. (rows, h0) -> (rows, out)"""
        hidden = self._activate(hidden, 0)
        for k, weight in enumerate(self.weights, start=1):
            hidden = self._activate(hidden @ weight, k)
        return hidden @ self.weight_out + self.bias_out

    def _activate(self, hidden: np.ndarray, k: int) -> np.ndarray:
        if self.layer_norm:
            variance = np.vecdot(hidden, hidden) * self.inverse_sizes[k]
            hidden *= (1.0 / np.sqrt(variance + self.epsilon))[:, None]
        hidden += self.biases[k]
        return np.maximum(hidden, 0.0, out=hidden)


def _centre(weight: np.ndarray) -> np.ndarray:
    wide = weight.astype(np.float64)
    return (wide - wide.mean(axis=-1, keepdims=True)).astype(np.float32)


class _Part:
    """A leaf of a critic with its weight in the sum."""

    def __init__(self, spec: dict[str, Any], arrays: Mapping[str, np.ndarray], prefix: str, weight: float) -> None:
        self.perceptron = Perceptron(spec, arrays, prefix)
        self.scale = np.float32(weight * float(arrays[prefix + "scale"]))
        self.offset = np.float32(weight * float(arrays[prefix + "offset"]))

    def at(self, observation: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """w Q(s, ·) of any form."""
        read = self.perceptron.read(observation)
        return lambda action: self.perceptron(read, action)[..., 0] * self.scale + self.offset


class _QuadraticPart(_Part):
    """The same where Q is quadratic in the action."""

    def at(self, observation: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """w Q(s, ·)."""
        form = read_form(self.perceptron.alone(observation))
        return lambda action: quadratic(*form, action) * self.scale + self.offset

    def form(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P in units of w Q, and μ. (batch, obs) -> (batch, act, act), (batch, act)"""
        _, mean, factor = read_form(self.perceptron.alone(observation))
        wide = factor.astype(np.float64)
        return float(self.scale) * (wide @ np.matrix_transpose(wide)), mean


class _OrPart:
    """An `or` with its weight in the sum."""

    def __init__(self, spec: dict[str, Any], arrays: Mapping[str, np.ndarray], prefix: str, weight: float) -> None:
        self.spec, self.weight = spec, weight
        self.children = [Critic(_below(arrays, f"{prefix}{i}/", child)) for i, child in enumerate(spec["of"])]

    def at(self, observation: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """w Q(s, ·)."""
        members, shares, temperature = self._members(observation), self.spec["weights"], self.spec["temperature"]
        return lambda action: self.weight * mix_values([q(action) for q in members], shares, temperature)

    def _members(self, observation: np.ndarray) -> list[Callable[[np.ndarray], np.ndarray]]:
        return [child.at(observation) for child in self.children]


class _GpiPart(_OrPart):
    """A `gpi` with its weight in the sum."""

    def at(self, observation: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """w Q(s, ·)."""
        members = self._members(observation)
        return lambda action: self.weight * np.max([q(action) for q in members], axis=0)


class _PreferPart(_OrPart):
    """A `prefer` with its weight in the sum."""

    def __init__(self, spec: dict[str, Any], arrays: Mapping[str, np.ndarray], prefix: str, weight: float) -> None:
        super().__init__(spec, arrays, prefix, weight)
        size = next(len(array) for name, array in arrays.items() if name.endswith("weight_input"))
        self.actions = spread_actions(spec["candidates"], size).astype(np.float32)

    def at(self, observation: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """w Q(s, ·)."""
        high, low = self._members(observation)
        block = max(1, ROWS // len(self.actions))
        highest = np.concatenate([self._highest(observation[i : i + block]) for i in range(0, len(observation), block)])
        numbers = [self.spec[name] for name in ("slack", "width", "strength")]
        return lambda action: self.weight * prefer_values(high(action), highest, low(action), *numbers)

    def _highest(self, observation: np.ndarray) -> np.ndarray:
        """max_a Q_high(s, a) among the fixed actions. (batch, obs) -> (batch, 1)"""
        actions = np.broadcast_to(self.actions, (len(observation), *self.actions.shape))
        return self.children[0].at(observation)(actions).max(axis=-1, keepdims=True)


def _below(arrays: Mapping[str, np.ndarray], prefix: str, spec: dict[str, Any]) -> Network:
    return Network(spec, {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})


class Critic:
    """A critic of any kind of the closed set. `critic.at(observation)` is a function of actions alone."""

    def __init__(self, network: Network) -> None:
        kinds = {"critic": _Part, "quadratic": _QuadraticPart, "or": _OrPart, "prefer": _PreferPart, "gpi": _GpiPart}
        self._parts = [
            kinds[spec["kind"]](spec, network.arrays, prefix, weight)
            for prefix, spec, weight in leaves_of(network.spec, whole=("or", "prefer", "gpi"))
        ]

    def at(self, observation: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Q(s, ·) for observations (batch, obs): a function (batch, n, act) -> (batch, n)."""
        parts = [part.at(observation) for part in self._parts]

        def q(action: np.ndarray) -> np.ndarray:
            total = np.float32(0.0)
            for part in parts:
                total = total + part(action)
            return np.asarray(total)

        return q

    def maximise(self, observation: np.ndarray) -> np.ndarray:
        """argmax_a Q(s, a) over the box where every leaf is quadratic: μ of one, else that of the sum's form.

        (batch, obs) -> (batch, act), float32
        """
        precisions, means = zip(*(part.form(observation) for part in self._parts), strict=True)
        if len(means) == 1:
            return means[0]
        return maximise_in_box(*combine_forms(precisions, means)).astype(np.float32)


class Actor:
    """A deterministic policy."""

    def __init__(self, network: Network) -> None:
        self._perceptron = Perceptron(network.spec, network.arrays)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """a = tanh f(s). (batch, obs) -> (batch, act)"""
        return np.tanh(self._perceptron.alone(observation))


class Sampler:
    """A sampler of any kind of the closed set: one or several implicit densities over pre-squash actions."""

    def __init__(self, network: Network) -> None:
        self.parts = [Perceptron(spec, network.arrays, prefix) for prefix, spec, _ in leaves_of(network.spec)]

    def draw(self, observation: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        """`count` particles u from each part. (batch, obs) -> one (batch, count, act) for each part"""
        return [
            part(part.read(observation), _noise(rng, (len(observation), count, part.weight_input.shape[0])))
            for part in self.parts
        ]


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)
