"""Small skills with random weights, for the tests of everything that takes a skill."""

import numpy as np
import pytest

from qompose.skill.artifact import Skill
from qompose.skill.network import Network, expected_arrays
from qompose.types import Transition

CRITIC = {"kind": "critic", "hidden": [8, 6], "layer_norm": True}
SAMPLER = {"kind": "sampler", "hidden": [8, 6], "layer_norm": False}


def _random_network(spec, rng, observation_size, action_size):
    arrays = {}
    for name, (dtype, shape) in expected_arrays(spec, observation_size, action_size).items():
        array = np.asarray(rng.standard_normal(shape) / max(1.0, np.prod(shape[:1])) ** 0.5)
        if name.rpartition("/")[2] in ("scale", "observation_scale"):
            array = np.abs(array) + 0.5
        arrays[name] = np.asarray(array, dtype=dtype)
    return Network(spec, arrays)


@pytest.fixture(scope="session")
def random_network():
    def make(spec, seed=0, observation_size=4, action_size=2):
        return _random_network(spec, np.random.default_rng(seed), observation_size, action_size)

    return make


@pytest.fixture
def make_skill():
    def make(name="left", *, critic=CRITIC, sampler=SAMPLER, transitions=5, seed=0, **changes):
        rng = np.random.default_rng(seed)
        replay = Transition(
            observation=rng.standard_normal((transitions, 4)).astype(np.float32),
            action=rng.uniform(-1, 1, (transitions, 2)).astype(np.float32),
            reward=rng.standard_normal(transitions).astype(np.float32),
            next_observation=rng.standard_normal((transitions, 4)).astype(np.float32),
            terminated=np.zeros(transitions, dtype=np.float32),
        )
        fields = {
            "name": name,
            "algorithm": "sql",
            "critic": _random_network(critic, rng, 4, 2),
            "sampler": sampler and _random_network(sampler, rng, 4, 2),
            "temperature": 0.1,
            "discount": 0.99,
            "observation": {"size": 4, "names": ["x", "y", "dx", "dy"]},
            "action": {"size": 2, "low": [-3.0, 0.0], "high": [3.0, 0.1]},
            "control_period": 0.05,
            "horizon": 300,
            "terminates": False,
            "task": {"id": "qompose/PushLeft-v0", "options": {"fork": True, "goal": -1.0}},
            "estimator": {"proposal": "mixture", "particles": 64, "centres": 16, "smoothing": 0.5},
            "composition": None,
            "provenance": {
                "command": "train 'PushLeft'",
                "seed": 0,
                "versions": {"numpy": "2"},
                "results": [0.5, None],
            },
            "replay": replay if transitions else None,
        }
        return Skill(**{**fields, **changes})

    return make


# Fields of the other algorithms: what they change beside SQL.
ACTOR = {"kind": "actor", "hidden": [8, 6], "layer_norm": False}
QUADRATIC = {"kind": "quadratic", "hidden": [8, 6], "layer_norm": True}


@pytest.fixture
def make_ddpg(make_skill):
    def make(name="left", **changes):
        return make_skill(name, sampler=ACTOR, algorithm="ddpg", temperature=None, estimator=None, **changes)

    return make


@pytest.fixture
def make_naf(make_skill):
    def make(name="left", critic=QUADRATIC, **changes):
        return make_skill(
            name, critic=critic, sampler=None, algorithm="naf", temperature=None, estimator=None, **changes
        )

    return make
