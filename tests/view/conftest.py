"""Skills with random weights that act in real tasks, and machines that cannot draw."""

import numpy as np
import pytest

from qompose.skill.artifact import Skill
from qompose.skill.network import Network, expected_arrays
from qompose.tasks import make_task
from qompose.view import stage
from qompose.view.graphics import Graphics


def _random_network(spec, rng, observation_size, action_size):
    arrays = {}
    for name, (dtype, shape) in expected_arrays(spec, observation_size, action_size).items():
        array = np.asarray(rng.standard_normal(shape))
        if name.rpartition("/")[2] in ("scale", "observation_scale"):
            array = np.ones(shape)
        arrays[name] = array.astype(dtype)
    return Network(spec, arrays)


@pytest.fixture
def make_skill():
    def make(env="PushLeft", name="left", sizes=None):
        task = None if sizes else make_task(env)
        observation_size, action_size = sizes or (task.observation_size, task.action_size)
        rng = np.random.default_rng(0)
        return Skill(
            name=name,
            algorithm="sql",
            critic=_random_network(
                {"kind": "critic", "hidden": [4], "layer_norm": False}, rng, observation_size, action_size
            ),
            sampler=_random_network(
                {"kind": "sampler", "hidden": [4], "layer_norm": False}, rng, observation_size, action_size
            ),
            temperature=0.1,
            discount=0.99,
            observation={"size": observation_size, "names": None},
            action={"size": action_size, "low": [-1.0] * action_size, "high": [1.0] * action_size},
            control_period=0.05,
            horizon=300,
            terminates=False,
            task={"id": env, "options": {}},
            estimator={"proposal": "mixture", "particles": 64, "centres": 16, "smoothing": 0.4},
            composition=None,
            provenance={},
        )

    return make


@pytest.fixture
def no_opengl(monkeypatch):
    monkeypatch.setattr(stage, "probe_graphics", lambda: Graphics(None, "no driver", "install EGL"))
