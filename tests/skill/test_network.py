import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.nets import from_arrays
from qompose.skill import network as networks
from qompose.skill.network import (
    Actor,
    Critic,
    Network,
    Sampler,
    check_arrays,
    check_spec,
    expected_arrays,
    leaves_of,
)
from qompose.soft.compose import spread_actions
from qompose.types import QomposeError

CRITIC = {"kind": "critic", "hidden": [8, 6], "layer_norm": True}
SAMPLER = {"kind": "sampler", "hidden": [8, 6], "layer_norm": True}
ACTOR = {"kind": "actor", "hidden": [8, 6], "layer_norm": False}
QUADRATIC = {"kind": "quadratic", "hidden": [8, 6], "layer_norm": True}


def plain(spec, arrays, observation, x):
    """The equation of the module's docstring, word by word, in float64."""
    hidden = (observation - arrays["observation_mean"]) / arrays["observation_scale"] @ arrays["weight_observation"]
    hidden = hidden + arrays["bias_input"]
    if x is not None:
        hidden = hidden + x @ arrays["weight_input"]
    for k in range(len(spec["hidden"])):
        if k:
            hidden = hidden @ arrays[f"weight_{k}"]
        if spec["layer_norm"]:
            hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5)
        hidden = np.maximum(hidden + arrays[f"bias_{k}"], 0.0)
    y = hidden @ arrays["weight_out"] + arrays["bias_out"]
    return arrays["offset"] + arrays["scale"] * y[0] if spec["kind"] == "critic" else y


def wide(arrays, prefix=""):
    return {k.removeprefix(prefix): v.astype(np.float64) for k, v in arrays.items() if k.startswith(prefix)}


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("hidden", [[8], [8, 6], [5, 7, 3]], ids=str)
def test_the_critic_computes_its_equation(random_network, hidden, layer_norm):
    spec = {"kind": "critic", "hidden": hidden, "layer_norm": layer_norm}
    network = random_network(spec)
    rng = np.random.default_rng(0)
    observation, action = rng.standard_normal((3, 4)), rng.uniform(-1, 1, (3, 5, 2))
    found = Critic(network).at(observation.astype(np.float32))(action.astype(np.float32))
    expected = [
        [plain(spec, wide(network.arrays), o, a) for a in actions]
        for o, actions in zip(observation, action, strict=True)
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_layer_norm_holds_where_the_mean_dwarfs_the_spread(random_network):
    network = random_network(CRITIC)
    arrays = dict(network.arrays)
    arrays["weight_observation"] = arrays["weight_observation"] + np.float32(100.0)
    rng = np.random.default_rng(0)
    observation, action = rng.standard_normal((1, 4)), rng.uniform(-1, 1, (1, 1, 2))
    found = Critic(Network(CRITIC, arrays)).at(observation.astype(np.float32))(action.astype(np.float32))
    np.testing.assert_allclose(
        found[0, 0], plain(CRITIC, wide(arrays), observation[0], action[0, 0]), rtol=1e-4, atol=1e-4
    )


def test_a_sum_is_the_weighted_sum_of_its_leaves(random_network):
    inner = {"kind": "sum", "weights": [0.5, 2.0], "of": [CRITIC, {**CRITIC, "hidden": [3]}]}
    spec = {"kind": "sum", "weights": [0.25, 4], "of": [CRITIC, inner]}
    network = random_network(spec)
    check_spec(spec, "critic", "sql")
    rng = np.random.default_rng(0)
    observation, action = rng.standard_normal((1, 4)), rng.uniform(-1, 1, (1, 1, 2))
    expected = sum(
        weight * plain(leaf, wide(network.arrays, prefix), observation[0], action[0, 0])
        for weight, (prefix, leaf) in zip(
            [0.25, 2.0, 8.0], [("0/", CRITIC), ("1/0/", CRITIC), ("1/1/", {**CRITIC, "hidden": [3]})], strict=True
        )
    )
    found = Critic(network).at(observation.astype(np.float32))(action.astype(np.float32))
    np.testing.assert_allclose(found[0, 0], expected, rtol=2e-5)
    assert [prefix for prefix, _, _ in leaves_of(spec)] == ["0/", "1/0/", "1/1/"]


def test_a_corrected_critic_is_a_sum_less_its_correction(random_network):
    total = {"kind": "sum", "weights": [0.5, 2.0], "of": [CRITIC, {**CRITIC, "hidden": [3]}]}
    spec = {"kind": "corrected", "of": [total, CRITIC]}
    whole = {"kind": "sum", "weights": [3.0], "of": [spec]}
    check_spec(whole, "critic", "sql")
    network = random_network(whole)
    rng = np.random.default_rng(0)
    observation, action = rng.standard_normal((4, 4)).astype("f4"), rng.uniform(-1, 1, (4, 5, 2)).astype("f4")
    leaves = [("0/0/0/", CRITIC, 1.5), ("0/0/1/", {**CRITIC, "hidden": [3]}, 6.0), ("0/1/", CRITIC, -3.0)]
    expected = [
        [sum(w * plain(leaf, wide(network.arrays, prefix), o, a) for prefix, leaf, w in leaves) for a in actions]
        for o, actions in zip(observation, action, strict=True)
    ]
    found = Critic(network).at(observation)(action)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    module = from_arrays(whole, dict(network.arrays))
    np.testing.assert_allclose(jax.jit(jax.vmap(module))(observation, action), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "of",
    [[], [CRITIC], [CRITIC, CRITIC], [{"kind": "sum", "weights": [1.0], "of": [CRITIC]}] * 2, [None, CRITIC]],
    ids=["nothing", "one", "no sum", "two sums", "null"],
)
def test_a_corrected_critic_of_other_parts_is_refused(of):
    with pytest.raises(QomposeError, match=r"critic\.of: must be a"):
        check_spec({"kind": "corrected", "of": of}, "critic", "sql")
    with pytest.raises(QomposeError, match=r"critic\.kind: must be one of critic, sum, prefer, not 'corrected'"):
        check_spec({"kind": "corrected", "of": of}, "critic", "ddpg")
    with pytest.raises(QomposeError, match="'weights': does not belong to kind corrected"):
        check_spec({"kind": "corrected", "of": of, "weights": [1.0, 1.0]}, "critic", "sql")


def test_the_sampler_computes_its_equation(random_network):
    network = random_network(SAMPLER)
    observation = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    drawn = Sampler(network).draw(observation, 5, np.random.default_rng(1))
    noise = np.random.default_rng(1).standard_normal((3, 5, 2), dtype=np.float32).astype(np.float64)
    expected = [
        [plain(SAMPLER, wide(network.arrays), o, x) for x in xs] for o, xs in zip(observation, noise, strict=True)
    ]
    np.testing.assert_allclose(drawn[0], expected, rtol=2e-5, atol=2e-5)


def test_candidates_draw_from_each_child(random_network):
    spec = {"kind": "candidates", "of": [SAMPLER, SAMPLER, SAMPLER]}
    network = random_network(spec)
    arrays = dict(network.arrays)
    for index in range(3):  # constants: child i always returns i
        arrays[f"{index}/weight_out"] = np.zeros_like(arrays[f"{index}/weight_out"])
        arrays[f"{index}/bias_out"] = np.full(2, index, dtype=np.float32)
    sampler = Sampler(Network(spec, arrays))
    drawn = sampler.draw(np.zeros((2, 4), dtype=np.float32), 4, np.random.default_rng(0))
    assert [float(part.mean()) for part in drawn] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("hidden", [[8], [5, 7, 3]], ids=str)
def test_the_actor_computes_its_equation(random_network, hidden, layer_norm):
    spec = {"kind": "actor", "hidden": hidden, "layer_norm": layer_norm}
    network = random_network(spec)
    observation = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    expected = [np.tanh(plain(spec, wide(network.arrays), o, None)) for o in observation]
    np.testing.assert_allclose(Actor(network)(observation), expected, rtol=2e-5, atol=2e-5)


def form_of(spec, arrays, observation):
    """V, μ and P in raw units, from the definition: outputs V, μ, then L row by row, softplus on its diagonal."""
    y = plain(spec, arrays, observation, None)
    factor = np.array([[np.log1p(np.exp(y[3])), 0.0], [y[4], np.log1p(np.exp(y[5]))]])
    return arrays["offset"] + arrays["scale"] * y[0], np.tanh(y[1:3]), arrays["scale"] * factor @ factor.T


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_quadratic_computes_its_equation(random_network, layer_norm):
    spec = {**QUADRATIC, "layer_norm": layer_norm}
    network = random_network(spec)
    rng = np.random.default_rng(0)
    observation, action = rng.standard_normal((3, 4)), rng.uniform(-1, 1, (3, 5, 2))
    critic = Critic(network)
    found = critic.at(observation.astype(np.float32))(action.astype(np.float32))
    for row, best, o, actions in zip(
        found, critic.maximise(observation.astype(np.float32)), observation, action, strict=True
    ):
        value, mean, precision = form_of(spec, wide(network.arrays), o)
        expected = [value - 0.5 * (a - mean) @ precision @ (a - mean) for a in actions]
        np.testing.assert_allclose(row, expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(best, mean, atol=2e-5)
    assert found.dtype == critic.maximise(observation.astype(np.float32)).dtype == np.float32


def test_a_sum_of_quadratics_is_maximised_over_the_box(random_network):
    inner = {"kind": "sum", "weights": [0.5, 2.0], "of": [QUADRATIC, QUADRATIC]}
    spec = {"kind": "sum", "weights": [0.25, 1.0], "of": [QUADRATIC, inner]}
    check_spec(spec, "critic", "naf")
    critic = Critic(random_network(spec))
    observation = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    best = critic.maximise(observation)
    line = np.linspace(-1.0, 1.0, 201, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    q = critic.at(observation)(np.tile(grid, (20, 1, 1)))
    assert np.all(critic.at(observation)(best[:, None, :])[:, 0] >= q.max(axis=-1) - 1e-5)
    np.testing.assert_allclose(best, grid[q.argmax(axis=-1)], atol=0.05)


@pytest.mark.parametrize("size", [1, 7])
def test_numpy_and_jax_agree_on_the_kinds_of_ddpg_and_naf(random_network, size):
    observation = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    action = np.random.default_rng(1).uniform(-1, 1, (4, 3, size)).astype(np.float32)
    for kind in (ACTOR, QUADRATIC):
        network = random_network(kind, action_size=size)
        module = from_arrays(kind, dict(network.arrays))
        both = jnp.asarray(observation), jnp.asarray(action)
        if kind is ACTOR:
            pairs = [(Actor(network)(observation), jax.jit(jax.vmap(module))(both[0]))]
        else:
            critic = Critic(network)
            pairs = [
                (critic.at(observation)(action), jax.jit(jax.vmap(module))(*both)),
                (critic.maximise(observation), jax.jit(jax.vmap(module.best))(both[0])),
            ]
        for mine, theirs in pairs:
            assert mine.shape == theirs.shape
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "role", "algorithm", "message"),
    [
        (SAMPLER, "sampler", "ddpg", "sampler.kind: must be one of actor, not 'sampler'"),
        ({"kind": "candidates", "of": [ACTOR]}, "sampler", "ddpg", "sampler.kind: must be one of actor"),
        (ACTOR, "sampler", "sql", "sampler.kind: must be one of sampler, candidates, not 'actor'"),
        ({"kind": "candidates", "of": [ACTOR]}, "sampler", "sql", r"sampler.of\[0\].kind"),
        (QUADRATIC, "critic", "sql", "critic.kind: must be one of critic, sum"),
        (QUADRATIC, "critic", "ddpg", "critic.kind"),
        (CRITIC, "critic", "naf", "critic.kind: must be one of quadratic, sum"),
        ({"kind": "or"}, "critic", "ddpg", "critic.kind: must be one of critic, sum, prefer, not 'or'"),
        ({"kind": "or"}, "critic", "naf", "critic.kind: must be one of quadratic, sum, not 'or'"),
        ({"kind": "prefer"}, "critic", "naf", "critic.kind: must be one of quadratic, sum, not 'prefer'"),
        (
            {"kind": "sum", "weights": [1.0, -0.1], "of": [QUADRATIC, QUADRATIC]},
            "critic",
            "naf",
            r"critic.weights: a weight must be a number from 1e-9 to 1e9, not -0.1",
        ),
        ({"kind": "sum", "weights": [1.0, 1.0], "of": [QUADRATIC, CRITIC]}, "critic", "naf", r"critic.of\[1\].kind"),
        (ACTOR, "sampler", "naf", "sampler: must be null, .*; naf acts by its critic alone"),
        (None, "sampler", "ddpg", "sampler: must be an object"),
        (None, "critic", "naf", "critic: must be an object"),
        ({**QUADRATIC, "hidden": []}, "critic", "naf", "critic.hidden"),
        ({**ACTOR, "noise": 0.1}, "sampler", "ddpg", "sampler.'noise': does not belong"),
    ],
)
def test_a_kind_of_another_algorithm_is_refused(spec, role, algorithm, message):
    with pytest.raises(QomposeError, match=message):
        check_spec(spec, role, algorithm)


@pytest.mark.parametrize("spec", [ACTOR, QUADRATIC], ids=["actor", "quadratic"])
def test_arrays_of_the_kinds_of_ddpg_and_naf_are_checked(random_network, spec):
    network = random_network(spec)
    assert check_arrays(network, 4, 2)["weight_out"].shape == ((6, 2) if spec is ACTOR else (6, 6))
    assert ("scale" in network.arrays) == (spec is QUADRATIC) and "weight_input" not in network.arrays
    for name, array, what in (
        ("weight_input", np.zeros((2, 8), np.float32), "does not belong"),
        ("bias_out", np.zeros(3, np.float32), "must be float32"),
        ("bias_input", np.full(8, np.nan, np.float32), "NaN"),
        ("weight_out", None, "is missing"),
    ):
        arrays = {**network.arrays, name: array}
        if array is None:
            del arrays[name]
        with pytest.raises(QomposeError, match=f"tensor '{name}': .*{what}"):
            check_arrays(Network(spec, arrays), 4, 2)
    if spec is QUADRATIC:
        with pytest.raises(QomposeError, match=r"tensor 'scale': .*positive"):
            check_arrays(Network(spec, {**network.arrays, "scale": np.float32(-1.0)}), 4, 2)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "actor"}, "critic.kind"),
        ({"kind": ["critic"]}, "critic.kind"),
        ({"kind": "sampler"}, "critic.kind"),
        ({"hidden": []}, "critic.hidden"),
        ({"hidden": [8] * 9}, "critic.hidden"),
        ({"hidden": [0]}, "critic.hidden"),
        ({"hidden": [True]}, "critic.hidden"),
        ({"hidden": [8.0]}, "critic.hidden"),
        ({"hidden": [10**9]}, "critic.hidden"),
        ({"hidden": "88"}, "critic.hidden"),
        ({"layer_norm": 1}, "critic.layer_norm"),
        ({"of": []}, "critic.'of'"),
    ],
)
def test_a_leaf_outside_the_schema_is_refused(change, field):
    with pytest.raises(QomposeError, match=field.replace(".", r"\.")):
        check_spec({**CRITIC, **change}, "critic", "sql")


def nested(depth):
    return CRITIC if depth == 1 else {"kind": "sum", "weights": [1.0], "of": [nested(depth - 1)]}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (None, "critic: must be an object"),
        ({"kind": "critic"}, "is missing"),
        ({"kind": "sum", "weights": [1.0], "of": CRITIC}, r"critic\.of"),
        ({"kind": "sum", "weights": [], "of": []}, r"critic\.of"),
        ({"kind": "sum", "weights": [1.0, 1.0], "of": [CRITIC]}, r"critic\.weights"),
        ({"kind": "sum", "weights": [0.0], "of": [CRITIC]}, r"critic\.weights: .*of either sign, not 0"),
        ({"kind": "sum", "weights": [-1e-10], "of": [CRITIC]}, r"critic\.weights"),
        ({"kind": "sum", "weights": [-1e10], "of": [CRITIC]}, r"critic\.weights"),
        ({"kind": "sum", "weights": [float("nan")], "of": [CRITIC]}, r"critic\.weights"),
        ({"kind": "sum", "weights": [1.0], "of": [CRITIC], "temperature": 1.0}, r"critic\.'temperature'"),
        ({"kind": "sum", "weights": [True], "of": [CRITIC]}, r"critic\.weights"),
        ({"kind": "sum", "weights": [1e300], "of": [CRITIC]}, r"critic\.weights"),
        ({"kind": "sum", "weights": [1.0], "of": [SAMPLER]}, r"critic\.of\[0\]\.kind"),
        ({"kind": "candidates", "of": [SAMPLER]}, r"critic\.kind"),
        (nested(8), "deeper than 7"),
        (
            {
                "kind": "sum",
                "weights": [1.0] * 8,
                "of": [{"kind": "sum", "weights": [1.0] * 9, "of": [CRITIC] * 9}] * 8,
            },
            "72 leaf",
        ),
    ],
    ids=str,
)
def test_a_tree_outside_the_schema_is_refused(spec, field):
    with pytest.raises(QomposeError, match=field):
        check_spec(spec, "critic", "sql")


OR = {"kind": "or", "weights": [0.25, 0.75], "temperature": 0.1, "of": [CRITIC, CRITIC]}
PREFER = {"kind": "prefer", "slack": 0.5, "width": 0.1, "strength": 1.0, "candidates": 32, "of": [CRITIC, CRITIC]}
GPI = {"kind": "gpi", "of": [CRITIC, CRITIC]}
NESTED = {
    "kind": "sum",
    "weights": [0.5, -0.7, 2.0, -0.3],
    "of": [CRITIC, {**OR, "of": [PREFER, CRITIC]}, {**PREFER, "of": [OR, OR]}, GPI],
}


@pytest.mark.parametrize(
    ("spec", "change", "field"),
    [
        (OR, {"weights": [0.5, 0.6]}, r"critic\.weights: must sum to one, not 1\.1"),
        (OR, {"weights": [-0.5, 1.5]}, r"critic\.weights: a weight must be"),
        (OR, {"weights": [1.0]}, r"critic\.weights"),
        (OR, {"weights": [float("nan"), 1.0]}, r"critic\.weights"),
        (OR, {"weights": None}, r"critic\.weights"),
        (OR, {"temperature": 0}, r"critic\.temperature: must be a number from 1e-08 to 1e\+08, not 0"),
        (OR, {"temperature": -0.1}, r"critic\.temperature"),
        (OR, {"temperature": True}, r"critic\.temperature"),
        (OR, {"temperature": 10**400}, r"critic\.temperature"),
        (OR, {"slack": 0.5}, r"critic\.'slack': does not belong to kind or"),
        (OR, {"of": [CRITIC, SAMPLER]}, r"critic\.of\[1\]\.kind"),
        (PREFER, {"slack": 0.0}, r"critic\.slack"),
        (PREFER, {"slack": float("inf")}, r"critic\.slack"),
        (PREFER, {"width": -1.0}, r"critic\.width"),
        (PREFER, {"strength": "1"}, r"critic\.strength"),
        (PREFER, {"candidates": 0}, r"critic\.candidates: must be an integer from 1 to 4096, not 0"),
        (PREFER, {"candidates": 10**9}, r"critic\.candidates"),
        (PREFER, {"candidates": 32.0}, r"critic\.candidates"),
        (PREFER, {"candidates": True}, r"critic\.candidates"),
        (PREFER, {"of": [CRITIC]}, r"critic\.of: must be 2 networks"),
        (PREFER, {"of": [CRITIC] * 3}, r"critic\.of: must be 2 networks"),
        (PREFER, {"weights": [0.5, 0.5]}, r"critic\.'weights': does not belong to kind prefer"),
        (GPI, {"weights": [0.5, 0.5]}, r"critic\.'weights': does not belong to kind gpi"),
        (GPI, {"of": []}, r"critic\.of: must be a list of 1 to"),
        (GPI, {"of": [CRITIC, OR]}, r"critic\.of: must be networks of kind critic"),
        (GPI, {"of": [CRITIC, None]}, r"critic\.of: must be networks of kind critic"),
    ],
)
def test_an_or_and_a_preference_outside_the_schema_are_refused(spec, change, field):
    check_spec(spec, "critic", "sql")
    with pytest.raises(QomposeError, match=field):
        check_spec({**spec, **change}, "critic", "sql")


@pytest.mark.parametrize("spec", [OR, PREFER, GPI], ids=["or", "prefer", "gpi"])
def test_every_field_of_an_or_and_a_preference_is_required(spec):
    for name in spec:
        with pytest.raises(QomposeError, match=name):
            check_spec({key: value for key, value in spec.items() if key != name}, "critic", "sql")


def test_ddpg_may_avoid_and_prefer():
    check_spec({"kind": "sum", "weights": [1.0, -0.5], "of": [CRITIC, PREFER]}, "critic", "ddpg")


def test_a_tree_of_every_operator_computes_its_equations(random_network):
    check_spec(NESTED, "critic", "sql")
    network = random_network(NESTED)
    rng = np.random.default_rng(0)
    observation, action = rng.standard_normal((3, 4)), rng.uniform(-1, 1, (3, 5, 2))

    def value(spec, prefix, o, a):
        if spec["kind"] == "critic":
            return plain(spec, wide(network.arrays, prefix), o, a)
        children = [(child, f"{prefix}{index}/") for index, child in enumerate(spec["of"])]
        each = [value(*child, o, a) for child in children]
        if spec["kind"] == "gpi":
            return max(each)
        if spec["kind"] == "sum":
            return np.dot(spec["weights"], each)
        if spec["kind"] == "or":
            return spec["temperature"] * np.log(np.dot(spec["weights"], np.exp(np.array(each) / spec["temperature"])))
        highest = max(value(*children[0], o, other) for other in spread_actions(spec["candidates"], 2))
        gap = (each[0] - highest + spec["slack"]) / spec["width"]
        return each[1] - spec["strength"] * np.log1p(np.exp(-gap))

    found = Critic(network).at(observation.astype(np.float32))(action.astype(np.float32))
    expected = [[value(NESTED, "", o, a) for a in some] for o, some in zip(observation, action, strict=True)]
    assert found.dtype == np.float32 and found.shape == (3, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 7])
def test_numpy_and_jax_agree_on_a_tree_of_every_operator(random_network, size):
    network = random_network(NESTED, action_size=size)
    observation = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    action = np.random.default_rng(1).uniform(-1, 1, (4, 3, size)).astype(np.float32)
    module = from_arrays(NESTED, dict(network.arrays))
    mine, theirs = Critic(network).at(observation)(action), jax.jit(lambda *both: module(*both))(observation, action)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    # A value belongs to a state and an action, whatever others are asked for with them.
    alone = [
        Critic(network).at(observation[i : i + 1])(action[i : i + 1, j : j + 1]) for i in range(4) for j in range(3)
    ]
    np.testing.assert_allclose(mine.ravel(), np.ravel(alone), rtol=1e-5, atol=1e-5)


def test_a_preference_in_many_states_is_that_in_each(random_network, monkeypatch):
    network = random_network(PREFER)
    observation = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    action = np.random.default_rng(1).uniform(-1, 1, (9, 3, 2)).astype(np.float32)
    at_once = Critic(network).at(observation)(action)
    monkeypatch.setattr(networks, "ROWS", 64)  # two states at a time
    np.testing.assert_allclose(Critic(network).at(observation)(action), at_once, rtol=1e-5, atol=1e-5)


def test_the_deepest_tree_is_allowed():
    check_spec(nested(7), "critic", "sql")


def test_the_arrays_of_a_sum_are_named_by_path():
    expected = expected_arrays({"kind": "sum", "weights": [1.0], "of": [CRITIC]}, 4, 2)
    assert expected["0/weight_observation"] == ("float32", (4, 8))
    assert expected["0/weight_1"] == ("float32", (8, 6))
    assert expected["0/weight_out"] == ("float32", (6, 1))
    assert expected["0/scale"] == ("float32", ())
    assert len(expected) == 12


def test_arrays_are_kept_apart_from_the_caller(random_network):
    network = random_network(CRITIC)
    kept = check_arrays(network, 4, 2)
    network.arrays["weight_out"][:] = 7.0
    assert not np.any(kept["weight_out"] == 7.0)
    with pytest.raises(ValueError, match="read-only"):
        kept["weight_out"][:] = 7.0


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        ("extra", np.zeros(1, np.float32), "does not belong"),
        ("bias_0", None, "is missing"),
        ("bias_0", np.zeros(8), "must be float32"),
        ("bias_0", np.zeros(7, np.float32), r"must be float32 \[8\]"),
        ("bias_0", np.full(8, np.nan, np.float32), "NaN"),
        ("weight_out", np.full((6, 1), -np.inf, np.float32), "infinity"),
        ("scale", np.float32(0.0), "positive"),
        ("observation_scale", np.array([1, 1, -1, 1], np.float32), "positive"),
    ],
)
def test_wrong_arrays_are_refused_by_name(random_network, name, array, what):
    network = random_network(CRITIC)
    arrays = {**network.arrays, name: array}
    if array is None:
        del arrays[name]
    with pytest.raises(QomposeError, match=f"tensor '{name}': .*{what}"):
        check_arrays(Network(CRITIC, arrays), 4, 2)


def test_preferences_that_would_fill_the_memory_are_refused(random_network):
    many = {**PREFER, "candidates": 4096}
    spec = {"kind": "sum", "weights": [1.0] * 32, "of": [many] * 32}
    check_spec(spec, "critic", "sql")
    check_arrays(random_network(spec), 4, 2)
    with pytest.raises(
        QomposeError, match=r"candidates: all prefers try 1310720000 numbers at once .* at most 1048576"
    ):
        check_arrays(Network(spec, {}), 4, 10_000)
