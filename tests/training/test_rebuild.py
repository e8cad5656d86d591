import re
import shutil
from dataclasses import replace

import pytest

from qompose import store
from qompose.log import LOG, load_log
from qompose.training.rebuild import replay_log, verify_log
from qompose.training.session import train
from qompose.types import QomposeError

COUNTS = {"steps": 600, "transitions": 600, "updates": 400, "torn_bytes": 0}


@pytest.fixture
def run(tiny_runs, tmp_path):
    return shutil.copytree(tiny_runs["right"], tmp_path / "run", symlinks=True)


def test_the_log_of_a_run_gives_its_checkpoint_and_its_skill_bit_for_bit(run):
    assert COUNTS.items() <= verify_log(run).items()
    assert {**COUNTS, "checkpoint": 600, "skill": True}.items() <= replay_log(run).items()


@pytest.mark.parametrize("algo", ["ddpg", "naf"])
def test_so_it_does_for_the_other_algorithms(tiny_training, tmp_path, algo):
    train(
        "MultiGoal", algo=algo, hidden=(16,), batch_size=8, training=tiny_training, track=False,
        output_dir=tmp_path / "run",
    )  # fmt: skip
    assert replay_log(tmp_path / "run")["skill"]


def test_a_foreign_environment_is_not_needed(walk_id, tiny_agent, tiny_training, tmp_path):
    train(walk_id, agent=tiny_agent, training=tiny_training, track=False, output_dir=tmp_path / "run")
    import gymnasium

    spec = gymnasium.registry.pop(walk_id)
    try:
        answer = replay_log(tmp_path / "run")
    finally:
        gymnasium.registry[walk_id] = spec
    assert answer["skill"] and answer["transitions"] < 600  # steps that only reset a lane give none


def test_other_transitions_give_other_networks(run):
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(re.sub(r'"seed": 0', '"seed": 1', config))
    with pytest.raises(QomposeError, match=r"checkpoint 600 is not what the log gives: agent/.* differ; bits are"):
        replay_log(run)


def test_damage_is_found_and_named(run):
    whole, places = (run / LOG).read_bytes(), load_log(run / LOG).places
    for place in (places[3].length, places[-2].length):
        data = bytearray(whole)
        data[place + 30] ^= 4
        (run / LOG).write_bytes(data)
        with pytest.raises(QomposeError, match=f"transitions.log: is damaged at byte {place}; checkpoint 600 has seen"):
            verify_log(run)
    (run / LOG).write_bytes(whole + b"torn")
    assert verify_log(run)["torn_bytes"] == 4


def test_a_log_that_was_given_up_is_not_called_whole(run, tiny_agent, tiny_training):
    data = bytearray((run / LOG).read_bytes())
    data[2000] ^= 1
    (run / LOG).write_bytes(data)
    told, longer = [], replace(tiny_training, total_steps=600 + tiny_training.num_envs)
    config = store.read_json(run / "config.json")
    config["training"]["total_steps"] = longer.total_steps
    store.write_json(run / "config.json", config)
    agent = replace(tiny_agent, planned_updates=config["agent"]["planned_updates"])
    train(config["env"], agent=agent, training=longer, options=config["options"], output_dir=run, resume=True,
          track=False, on_notice=told.append)  # fmt: skip
    assert "goes on from its checkpoint, without a log" in told[0]
    with pytest.raises(QomposeError, match=r"was given up as damaged: checkpoint 60. was written without it"):
        verify_log(run)


def test_an_agent_of_another_version_is_refused_in_one_line(run):
    config = store.read_json(run / "config.json")
    store.write_json(run / "config.json", {**config, "agent": {**config["agent"], "charm": 1}})
    assert verify_log(run)["steps"] == 600
    with pytest.raises(QomposeError, match="its agent is not one of this version of qompose"):
        replay_log(run)


def test_a_run_without_a_log_and_one_that_began_with_a_skill_are_refused(run, refused):
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace('"env":', '"experience": [{"name": "x"}], "env":'))
    assert verify_log(run)["steps"] == 600
    assert "began with the experience of a skill, which its log does not hold" in refused("log", "replay", run)
    (run / LOG).unlink()
    assert "has no log of transitions: it was begun by an older qompose" in refused("log", "verify", run)
    assert "is not the directory of a run" in refused("log", "replay", run / "skill")


def test_a_checkpoint_that_cannot_be_read_is_not_passed_over(run):
    newest = max((run / "checkpoints").iterdir())
    (newest / "state.json").write_text("{")
    for look in (verify_log, replay_log):
        with pytest.raises(QomposeError, match=r"checkpoint 600 cannot be read; to go on from the one before"):
            look(run)
