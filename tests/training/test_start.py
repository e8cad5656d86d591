from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from qompose.agents.ddpg import DDPG
from qompose.agents.sql import SQL
from qompose.envs.lockstep import Lockstep
from qompose.nets import to_arrays
from qompose.run import name_leaves
from qompose.skill.algebra import unite_replays
from qompose.store import read_json
from qompose.tasks import make_task
from qompose.tasks.task import relabel
from qompose.training import session
from qompose.training.offline import Extraction, compose
from qompose.training.online import Loop
from qompose.training.start import agent_of, begin_with, digest_of
from qompose.types import QomposeError

BOTH = {"goals": [0, 2]}


@pytest.fixture(scope="module")
def composed(tiny_skills):
    options = Extraction(steps=20, batch_size=16, hidden=(16,))
    return compose(tiny_skills["right"] & tiny_skills["top"], name="both", extraction=options)


@pytest.fixture(scope="module")
def further(composed, tiny_training):
    """The composed skill after as much training of its own as its parts had."""
    return session.train("MultiGoal", start=composed, training=tiny_training, options=BOTH, batch_size=8)


def test_before_the_first_update_the_agent_is_the_skill(composed):
    env = Lockstep.make("MultiGoal", 2, BOTH)
    state = begin_with(agent_of(composed), env, composed).state
    observations, actions = env.reset(seed=0), np.float32([[0.1, -0.2], [0.3, 0.9]])
    for critic in (state.critic, state.target):
        q = np.asarray(critic(jnp.asarray(observations), jnp.asarray(actions)))
        np.testing.assert_allclose(q, composed.q(observations, actions), rtol=1e-5)
    sampler = to_arrays(state.sampler)
    assert all(np.array_equal(sampler[name], array) for name, array in composed.sampler.arrays.items())


def test_the_agent_is_as_warm_and_as_patient_as_the_skill(composed):
    agent = agent_of(replace(composed, temperature=0.3, discount=0.9))
    assert (agent.temperature, agent.initial_heat, agent.discount) == (0.3, 1.0, 0.9)


def test_the_experience_counts_with_the_rewards_of_the_new_task(composed, tiny_skills, tiny_training):
    env, agent = Lockstep.make("MultiGoal", 4, BOTH), agent_of(composed)
    loop = Loop(env, agent, tiny_training, begin_with(agent, env, composed))
    held, union = loop.learner.experience(), unite_replays(list(tiny_skills.values()))
    wanted = relabel(make_task("MultiGoal", **BOTH), union)
    for found, expected in zip(held, wanted, strict=True):
        assert np.array_equal(found, expected)
    assert not np.allclose(held.reward, union.reward)


def test_the_warm_up_follows_the_skill_and_leaves_its_networks_alone(composed, tiny_training):
    env, agent = Lockstep.make("MultiGoal", 4, BOTH), agent_of(composed)
    start = begin_with(agent, env, composed)
    loop = Loop(env, agent, tiny_training, start)
    before = name_leaves(loop.learner.state)
    actions = loop._choose()
    from_nothing = Loop(env, agent, tiny_training)._choose()
    assert not np.allclose(actions, from_nothing)
    while loop.learner.stored < tiny_training.warmup_steps - env.num_envs:
        loop.advance()
    assert all(np.array_equal(array, before[name]) for name, array in name_leaves(loop.learner.state).items())
    loop.advance()
    assert any(not np.array_equal(array, before[name]) for name, array in name_leaves(loop.learner.state).items())
    # What the skill holds is read, never written.
    assert np.array_equal(np.asarray(start.state.sampler.network.weight_out), composed.sampler.arrays["weight_out"])


def test_what_comes_out_is_a_skill_of_its_own_task(composed, further, tiny_training, tmp_path):
    assert further.task == {"id": "MultiGoal", "options": BOTH} and further.composition is None
    assert further.provenance["start"] == {"name": "both", "sha256": digest_of(composed)}
    assert len(further.replay.reward) == len(composed.replay.reward) + tiny_training.total_steps
    assert further.critic.spec["kind"] == composed.critic.spec["kind"] == "sum"
    for name, array in composed.critic.arrays.items():  # every part of the sum has learned
        if name.endswith("weight_out"):
            assert not np.array_equal(array, further.critic.arrays[name])
    loaded = type(further).load(further.save(tmp_path / "skill"))
    observation = np.float32([0.3, -0.2])
    assert np.array_equal(loaded.q(observation, observation), further.q(observation, observation))


def test_another_training_from_a_composition_compiles_nothing_anew(composed, further, tiny_training, compiled):
    options = replace(tiny_training, seed=1)
    again = session.train("MultiGoal", start=composed, training=options, options=BOTH, batch_size=8)
    assert not compiled
    assert any(not np.array_equal(array, further.critic.arrays[name]) for name, array in again.critic.arrays.items())


def test_a_run_goes_on_from_the_same_skill_only(composed, further, tiny_skills, tiny_training, tmp_path):
    settings = {"training": tiny_training, "options": BOTH, "batch_size": 8, "output_dir": tmp_path / "run"}
    finished = []

    def stop(progress):
        finished.append(progress.step)
        if progress.step >= 400:
            raise KeyboardInterrupt

    with pytest.raises(QomposeError, match="interrupted at step 400; the same command with --resume goes on"):
        session.train("MultiGoal", start=composed, on_progress=stop, **settings)
    assert read_json(tmp_path / "run" / "config.json")["start"]["name"] == "both"
    with pytest.raises(QomposeError, match=r"was started with start\.name='both', not 'right'"):
        session.train("MultiGoal", start=tiny_skills["right"], resume=True, **settings)
    again = session.train("MultiGoal", start=composed, resume=True, **settings)
    assert all(np.array_equal(again.critic.arrays[name], array) for name, array in further.critic.arrays.items())


@pytest.mark.parametrize(
    ("spoil", "settings", "message"),
    [
        (lambda skill: skill, {"algo": "ddpg"}, "starts from a skill is one of sql"),
        (lambda skill: skill, {"agent": DDPG()}, "starts from a skill is one of sql"),
        (lambda skill: skill, {"agent": SQL(hidden=(9,))}, r"hidden is \(9,\), but the networks of skill 'right' are"),
        (lambda skill: compose(skill & replace(skill), extract=False), {}, "has no sampler of its own; compose it"),
        (lambda skill: replace(skill, control_period=0.7), {}, r"is of no use on MultiGoal: its control period: 0\.7"),
    ],
)
def test_what_cannot_start_is_refused_in_one_line(tiny_skills, tiny_training, spoil, settings, message):
    with pytest.raises(QomposeError, match=message) as caught:
        session.train("MultiGoal", start=spoil(tiny_skills["right"]), training=tiny_training, **settings)
    assert "\n" not in str(caught.value)


def test_a_skill_of_another_algorithm_is_refused(tiny_training):
    skill = session.train("MultiGoal", algo="ddpg", training=tiny_training, hidden=(16,), batch_size=8)
    with pytest.raises(QomposeError, match="is of ddpg; only skills of sql can be trained further"):
        session.train("MultiGoal", start=skill, training=tiny_training)


def test_a_digest_is_that_of_networks_and_experience(tiny_skills):
    skill = tiny_skills["right"]
    arrays = dict(skill.critic.arrays)
    arrays["bias_out"] = arrays["bias_out"] + 1
    others = [
        skill, replace(skill, critic=skill.critic._replace(arrays=arrays)), replace(skill, replay=None),
        tiny_skills["top"],
    ]  # fmt: skip
    assert len({digest_of(other) for other in others}) == 4 and digest_of(replace(skill, name="x")) == digest_of(skill)


# -------------------------------------------------------------------------------------------- what others have seen


def rows_of(data):
    return np.concatenate([column if column.ndim == 2 else column[:, None] for column in data], axis=1)


def borrowing_loop(skill, training, **settings):
    env = Lockstep.make("MultiGoal", training.num_envs, {"goals": [2]})
    agent = agent_of(skill)
    return Loop(env, agent, replace(training, **settings), begin_with(agent, env, experience=[skill]))


@pytest.mark.parametrize("count", [600, 599, 3])
def test_borrowed_experience_is_learned_from_with_the_own_rewards_but_not_carried_on(tiny_skills, tiny_training, count):
    skill = tiny_skills["right"]
    skill = replace(skill, replay=type(skill.replay)(*(column[:count] for column in skill.replay)))
    loop = borrowing_loop(skill, tiny_training)
    held, own = rows_of(loop.learner.experience()), rows_of(loop.learner.own())
    whole = count // 4 * 4  # rounds of four lanes
    wanted = rows_of(relabel(make_task("MultiGoal", goals=[2]), skill.replay))[count - whole :]
    assert len(own) == 0 and np.array_equal(held, wanted)
    for _ in range(5):
        loop.advance()
    assert np.array_equal(rows_of(loop.learner.experience())[:whole], wanted) and len(loop.learner.own().reward) == 20
    assert np.array_equal(rows_of(loop.learner.own()), rows_of(loop.learner.experience())[whole:])


def test_in_a_full_replay_the_borrowed_goes_first(tiny_skills, tiny_training):
    loop = borrowing_loop(tiny_skills["right"], tiny_training, replay_size=100)
    borrowed = rows_of(loop.learner.experience())
    assert loop.learner.replay.capacity == 100 and len(borrowed) == 100 and len(loop.learner.own().reward) == 0
    for count in range(1, 27):
        loop.advance()
        own, held = rows_of(loop.learner.own()), rows_of(loop.learner.experience())
        assert len(own) == min(4 * count, 100) and len(held) == 100
        assert np.array_equal(held[4 * count :], borrowed[4 * count :])


def test_every_algorithm_learns_from_others(tiny_skills, tiny_training):
    for algo in ("ddpg", "naf"):
        skill = session.train(
            "MultiGoal", algo=algo, experience=list(tiny_skills.values()), training=tiny_training, options=BOTH,
            hidden=(16,), batch_size=8,
        )  # fmt: skip
        assert [entry["name"] for entry in skill.provenance["experience"]] == ["right", "top"]
        assert len(skill.replay.reward) == 600
        alone = session.train(
            "MultiGoal", algo=algo, training=tiny_training, options=BOTH, hidden=(16,), batch_size=8
        )  # fmt: skip
        assert not np.array_equal(skill.critic.arrays["weight_out"], alone.critic.arrays["weight_out"])


@pytest.mark.parametrize(
    ("env", "spoil", "message"),
    [
        ("Pendulum-v1", lambda skill: skill, "is of no use on Pendulum-v1: its observations: 2, there: 3"),
        ("MultiGoal", lambda skill: skill.strip(), "carries no replay to learn from"),
        ("MultiGoal", lambda skill: replace(skill, control_period=0.7), "its control period"),
    ],
)
def test_experience_that_is_of_no_use_is_refused_in_one_line(tiny_skills, tiny_training, env, spoil, message):
    with pytest.raises(QomposeError, match=message) as caught:
        session.train(env, experience=[spoil(tiny_skills["right"])], training=tiny_training)
    assert "\n" not in str(caught.value)


def test_experience_of_a_foreign_environment_has_no_rewards(tiny_skills, tiny_agent, tiny_training):
    skill = session.train("Pendulum-v1", agent=tiny_agent, training=tiny_training)
    with pytest.raises(QomposeError, match="its rewards for experience of others are not known"):
        session.train("Pendulum-v1", experience=[skill], training=tiny_training)


def test_a_training_that_borrows_is_resumed_exactly(tiny_skills, tiny_training, tmp_path):
    # A replay that overflows: what was borrowed is half overwritten when the training is interrupted.
    training = replace(tiny_training, replay_size=700, warmup_steps=100)
    settings = {"experience": [tiny_skills["right"]], "training": training, "options": BOTH, "hidden": (16,)}
    settings |= {"batch_size": 8}
    whole = session.train("MultiGoal", output_dir=tmp_path / "whole", **settings)

    def stop(progress):
        if progress.step >= 400:
            raise KeyboardInterrupt

    with pytest.raises(QomposeError, match="interrupted at step 400"):
        session.train("MultiGoal", output_dir=tmp_path / "cut", on_progress=stop, **settings)
    again = session.train("MultiGoal", output_dir=tmp_path / "cut", resume=True, **settings)
    assert np.array_equal(rows_of(again.replay), rows_of(whole.replay)) and len(whole.replay.reward) == 600
    assert all(np.array_equal(array, whole.critic.arrays[name]) for name, array in again.critic.arrays.items())
