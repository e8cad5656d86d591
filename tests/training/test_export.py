import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.envs.lockstep import Lockstep
from qompose.skill.artifact import Skill
from qompose.training.export import describe_skill, export_skill
from qompose.training.learner import init
from qompose.training.online import Trained
from qompose.types import QomposeError, Transition


@pytest.fixture
def describe(tiny_agent, tiny_training):
    def make(env="PushLeft", name="left", options=None):
        lanes = Lockstep.make(env, 1, options or {})
        return describe_skill(name, lanes, tiny_agent, tiny_training, options or {})

    return make


def test_a_skill_of_a_task_says_all_that_is_known_of_it(describe, tiny_agent, tiny_training):
    fields = describe("PushTo", options={"goal_x": -1.0, "goal_y": 0.5})
    assert fields["task"] == {"id": "PushTo", "options": {"goal_x": -1.0, "goal_y": 0.5}}
    assert fields["observation"]["size"] == 12 and fields["observation"]["names"][9] == "puck_x"
    assert fields["action"] == {"size": 3, "low": [-1.0] * 3, "high": [1.0] * 3}
    assert (fields["control_period"], fields["horizon"], fields["terminates"]) == (0.05, 300, False)
    assert (fields["temperature"], fields["discount"]) == (tiny_agent.temperature, tiny_agent.discount)
    assert fields["provenance"]["hyperparameters"]["hidden"] == list(tiny_agent.hidden)
    assert fields["provenance"]["training"]["total_steps"] == tiny_training.total_steps
    assert describe("MultiGoal")["terminates"]  # whether or not experience has shown it


def test_a_skill_of_a_foreign_environment_keeps_its_limits_and_leaves_the_rest_open(describe):
    fields = describe("Pendulum-v1")
    assert fields["action"] == {"size": 1, "low": [-2.0], "high": [2.0]} and fields["horizon"] == 200
    assert fields["observation"] == {"size": 3, "names": None} and fields["control_period"] is None


def test_a_strange_command_line_is_no_obstacle(describe, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "a\nb", "y" * 10000])
    assert len(describe()["provenance"]["command"]) == 4096


@pytest.mark.parametrize("name", ["", "Left", "a b", "../a", "a" * 65])
def test_names_that_no_skill_may_carry_are_refused(describe, name):
    with pytest.raises(QomposeError, match="name: must be"):
        describe(name=name)


def make_trained(agent, fields, terminated=(0.0, 0.0), evaluations=()):
    sizes = fields["observation"]["size"], fields["action"]["size"]
    state = init(agent, *sizes, jax.random.key(0))
    observation, action = np.zeros((2, sizes[0]), np.float32), np.zeros((2, sizes[1]), np.float32)
    transitions = Transition(observation, action, np.ones(2, np.float32), observation, np.float32(terminated))
    return Trained(state, transitions, 7, 600, 0, 1.26, list(evaluations))


def test_the_exported_skill_is_the_trained_one(describe, tiny_agent, tmp_path):
    fields = describe()
    trained = make_trained(tiny_agent, fields, evaluations=[{"step": 300}, {"step": 600, "eval/mean_reward": -1.0}])
    skill = Skill.load(export_skill(fields, trained).save(tmp_path / "skill"))
    rng = np.random.default_rng(0)
    observation, action = rng.normal(size=12).astype(np.float32), rng.uniform(-1, 1, 3).astype(np.float32)
    expected = trained.state.critic(jnp.asarray(observation), jnp.asarray(action))
    assert np.allclose(skill.q(observation, action), expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(skill.replay.reward, trained.transitions.reward) and not skill.terminates
    assert skill.provenance["results"] == {"step": 600, "mean_reward": -1.0}
    work = {name: skill.provenance[name] for name in ("steps", "episodes", "seconds")}
    assert work == {"steps": 600, "episodes": 7, "seconds": 1.3}


def test_experience_tells_whether_a_foreign_environment_terminates(describe, tiny_agent):
    fields = describe("Pendulum-v1")
    assert not export_skill(fields, make_trained(tiny_agent, fields)).terminates
    assert export_skill(fields, make_trained(tiny_agent, fields, terminated=(0.0, 1.0))).terminates
