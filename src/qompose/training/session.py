"""Training from a name to a skill: what `qompose.train` and `qompose train` do."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qompose.agents.ddpg import DDPG
from qompose.agents.naf import NAF
from qompose.agents.sql import SQL
from qompose.envs.lockstep import Lockstep
from qompose.envs.watchdog import PATIENCE, check_timeout
from qompose.run import open_run, plain
from qompose.skill.artifact import Skill, check_skills
from qompose.tasks import make_task, task_named
from qompose.training.export import describe_skill, export_skill
from qompose.training.online import Progress, Trained, Training, train_online
from qompose.training.start import agent_of, begin_with, digest_of
from qompose.types import QomposeError, check_options, check_settings, show

SKILL = "skill"
EVALUATION_LANES = 20
Agent = SQL | DDPG | NAF
ALGORITHMS: dict[str, type[Agent]] = {agent.algorithm: agent for agent in (SQL, DDPG, NAF)}


def train(
    env: str,
    *,
    algo: str | None = None,
    agent: Agent | None = None,
    start: Skill | None = None,
    experience: Sequence[Skill] = (),
    training: Training | None = None,
    options: dict[str, Any] | None = None,
    output_dir: str | Path | None = None,
    name: str | None = None,
    resume: bool = False,
    env_timeout: float = PATIENCE,
    track: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    on_notice: Callable[[str], None] = print,
    **settings: Any,
) -> Skill:
    """Train a skill: `train("PushLeft", total_steps=40_000, temperature=0.2)`, `train("PushLeft", algo="ddpg")`.

    `env` is a task of qompose or any Gymnasium id with boxes in and out; `options` go to the environment. `algo` is sql
    (soft Q-learning, the default), ddpg or naf; `settings` are fields of that agent or of `Training`. With `start`, a
    skill of sql that may be composed, the training begins with its Q, its sampler and, on a task of qompose, its
    experience, by default at its temperature and discount. `experience`: skills from whose replays the training learns
    as well, with the rewards of its own task, which must be one of qompose; the skill does not carry them on. With
    `output_dir` metrics, checkpoints and the skill itself (in `output_dir/skill`) are written; without it the skill is
    only returned; `resume` continues the run that is there from its latest checkpoint, and `track` writes TensorBoard's
    curves, too. `name` is that of the skill. `agent` and `training` are whole sets of hyperparameters, as
    `SQL(temperature=0.2)`, for those who have one. `env_timeout` is in seconds: what somebody else's environment may
    take to be made, or for one step of all lanes. `on_progress` is told how far the training is, `on_notice` what the
    user should know, in words. Raises QomposeError for whatever the caller can mend.
    """
    check_timeout(env_timeout)
    if not isinstance(experience, list | tuple):
        raise QomposeError(f"experience is {show(experience)}; give a list of skills")
    check_skills([*([] if start is None else [start]), *experience])
    if resume and output_dir is None:
        raise QomposeError("resume needs output_dir: the run that is to be continued")
    if agent is not None and not isinstance(agent, Agent):
        raise QomposeError(f"agent is {show(agent)}; give qp.SQL(...), qp.DDPG(...) or qp.NAF(...), or a name as algo")
    check_settings("training", training, Training)
    agent, training = _configure(_choose(algo, agent, start), training or Training(), settings)
    agent = plan_updates(agent, training)
    options, name_of_task = check_options(options), task_named(env)
    if name_of_task is not None:
        task = make_task(name_of_task, **options)
        steps = task.training_horizon if training.episode_steps is None else min(training.episode_steps, task.horizon)
        training = dataclasses.replace(training, episode_steps=steps)
    make = functools.partial(Lockstep.make, env, options=options, patience=env_timeout)
    with contextlib.ExitStack() as stack:
        lanes = make(training.num_envs, episode_steps=training.episode_steps)
        stack.callback(lanes.close)
        fields = describe_skill(name or skill_name(env, options), lanes, agent, training, options)
        begin = begin_with(agent, lanes, start, experience)
        begins: dict[str, Any] = {}
        if start is not None:
            begins["start"] = {"name": start.name, "sha256": digest_of(start)}
        if experience:
            begins["experience"] = [{"name": skill.name, "sha256": digest_of(skill)} for skill in experience]
        fields["provenance"] |= begins
        evaluation = run = None
        if training.eval_freq:
            # Somebody else's environment may take long to be made: no more of it than there are of the training.
            most = training.num_envs if name_of_task is None else EVALUATION_LANES
            evaluation = make(min(training.eval_episodes, most))
            stack.callback(evaluation.close)
        if output_dir is not None:
            config = {"env": env, "options": options, "algo": agent.algorithm}
            config |= {"agent": plain(agent), "training": plain(training), **begins}
            run = stack.enter_context(open_run(output_dir, config, resume=resume, events=track))
        trained = train_online(
            lanes, agent, training, start=begin, evaluation_env=evaluation, run=run, resume=resume,
            on_progress=on_progress, on_notice=on_notice,
        )  # fmt: skip
        skill = finish(fields, agent, trained)
        if run is not None:
            skill.save(run.directory / SKILL, overwrite=True)
        return skill


def plan_updates(agent: Agent, training: Training) -> Agent:
    """The agent, which knows how long it will learn."""
    if agent.planned_updates is not None:
        return agent
    updates = training.updates_per_step * (training.total_steps - training.warmup_steps)
    return dataclasses.replace(agent, planned_updates=updates)


def finish(fields: dict[str, Any], agent: Agent, trained: Trained) -> Skill:
    """The skill of a training that is over, at the temperature that it has reached; see `export_skill`."""
    if isinstance(agent, SQL):  # an explicit plan, or a very short training, may end before it is cool
        reached = float(agent.heat(trained.state.updates))
        if not math.isclose(reached, agent.temperature, rel_tol=1e-6):  # float32 has no 0.1
            fields = {**fields, "temperature": reached}
    return export_skill(fields, trained)


def skill_name(env: str, options: Mapping[str, Any] | None = None) -> str:
    """PushBottomLeft-v0 -> push-bottom-left, PushTo to (0.5, -1) -> push-to-x0.5-y-1; a name that a skill may carry."""
    stem = re.sub(r"-v\d+$", "", env.rpartition(":")[2].rpartition("/")[2])
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", stem).lower()
    goal = {axis: (options or {}).get(f"goal_{axis}") for axis in "xy"}
    words += "".join(f"-{axis}{value:g}" for axis, value in goal.items() if isinstance(value, int | float))
    return re.sub(r"[^a-z0-9_.-]+", "-", words).strip("-._")[:64] or "skill"


def _choose(algo: str | None, agent: Agent | None, start: Skill | None) -> Agent:
    if start is not None:
        if algo not in (None, SQL.algorithm) or not isinstance(agent, SQL | None):
            raise QomposeError("a training that starts from a skill is one of sql; leave algo out")
        own = agent_of(start)  # refuses skills that cannot be trained further
        if agent is not None and agent.hidden != own.hidden:
            raise QomposeError(f"hidden is {agent.hidden}, but the networks of skill {start.name!r} are {own.hidden}")
        return own if agent is None else agent
    if algo is not None and algo not in ALGORITHMS:
        raise QomposeError(f"algo {algo!r} is unknown; choose one of {', '.join(ALGORITHMS)}")
    if agent is None:
        return ALGORITHMS[algo or "sql"]()
    if algo not in (None, agent.algorithm):
        raise QomposeError(f"algo is {algo!r}, but the agent given is {type(agent).__name__}; leave one of them out")
    return agent


def _configure(agent: Agent, training: Training, settings: dict[str, Any]) -> tuple[Agent, Training]:
    ours = {field.name for field in dataclasses.fields(agent)}
    loops = {field.name for field in dataclasses.fields(training)}
    unknown = settings.keys() - ours - loops
    if unknown:
        raise QomposeError(f"unknown setting {sorted(unknown)[0]!r}; known are {', '.join(sorted(ours | loops))}")
    return (
        dataclasses.replace(agent, **{name: value for name, value in settings.items() if name in ours}),
        dataclasses.replace(training, **{name: value for name, value in settings.items() if name in loops}),
    )
