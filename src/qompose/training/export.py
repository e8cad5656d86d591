"""A finished training as a skill: networks, what V needs, spaces, the replay, and where it all came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from qompose.agents.ddpg import DDPG, DDPGState
from qompose.agents.naf import NAF
from qompose.agents.sql import SQL, SQLState
from qompose.envs.lockstep import Lockstep
from qompose.run import command_line, describe_system, now, plain
from qompose.skill.act import CANDIDATES, PARTICLES, SMOOTHING
from qompose.skill.algebra import as_network
from qompose.skill.artifact import Skill
from qompose.skill.manifest import check_fields
from qompose.skill.network import Network
from qompose.training.online import Trained, Training


def describe_skill(
    name: str, env: Lockstep, agent: SQL | DDPG | NAF, options: Training, task_options: dict[str, Any]
) -> dict[str, Any]:
    """What a skill says of itself that is known before it is trained.

    Raises QomposeError for what a skill cannot hold, such as a name with a blank: better now than after the training.
    """
    system = describe_system()
    temperature = estimator = None
    if isinstance(agent, SQL):
        temperature = agent.temperature
        estimator = {"proposal": agent.proposal, "particles": CANDIDATES, "centres": PARTICLES, "smoothing": SMOOTHING}
    names = env.observation_names if env.task is not None else None
    fields: dict[str, Any] = {
        "name": name,
        "algorithm": agent.algorithm,
        "temperature": temperature,
        "discount": agent.discount,
        "observation": {"size": env.observation_size, "names": list(names) if names else None},
        "action": {
            "size": env.action_size,
            "low": [float(x) for x in env.action_low],
            "high": [float(x) for x in env.action_high],
        },
        "control_period": env.control_period,
        "horizon": env.task.horizon if env.task else env.horizon,
        "terminates": env.task is not None and env.task.terminates,
        "task": {"id": env.env_id, "options": task_options},
        "estimator": estimator,
        "composition": None,
        "provenance": {
            "command": command_line(),
            "created": now(),
            "seed": options.seed,
            "hyperparameters": plain(agent),
            "training": plain(options),
            "versions": system["versions"],
            "commit": system["commit"],
        },
    }
    return check_fields(fields)


def export_skill(fields: dict[str, Any], trained: Trained) -> Skill:
    """Return the skill that a training has made; `fields` from `describe_skill`."""
    work: dict[str, Any] = {
        "created": now(),
        "steps": trained.steps,
        "episodes": trained.episodes,
        "seconds": round(trained.seconds, 1),
    }
    if trained.evaluations:
        work["results"] = {key.removeprefix("eval/"): value for key, value in trained.evaluations[-1].items()}
    # Of a foreign environment only experience tells whether it has terminal states.
    terminates = fields["terminates"] or bool(np.any(trained.transitions.terminated))
    return Skill(
        **{**fields, "terminates": terminates, "provenance": {**fields["provenance"], **work}},
        critic=as_network(trained.state.critic),
        sampler=policy_of(trained.state),
        replay=trained.transitions,
    )


def policy_of(state: Any) -> Network | None:
    """The network that acts; None where the critic's maximum does."""
    if isinstance(state, SQLState):
        return as_network(state.sampler)
    if isinstance(state, DDPGState):
        return as_network(state.actor)
    return None
