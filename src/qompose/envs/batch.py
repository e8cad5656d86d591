"""Any task × N on MJX: simulation as a pure function of one lane, to be vmapped and compiled with what learns from it.

The same tasks, rewards and resets as on C MuJoCo, in float32. A lane that ends begins anew in the same step, and the
true last observation stays in what the step returns. Needs the package mujoco-mjx (extra `gpu`).
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from qompose.envs.lanes import LIMIT
from qompose.tasks.task import Task, compile_scene
from qompose.types import QomposeError


class Lane(eqx.Module):
    """Everything that the next step of one lane depends on."""

    qpos: Array
    qvel: Array
    warmstart: Array  # of the constraint solver
    memory: Array  # of the task, after this state
    readings: dict[str, Array]
    observation: Float[Array, " obs"]
    elapsed: Array  # steps of the episode so far, int32
    total: Array  # rewards of the episode so far


class Outcome(eqx.Module):
    """What one step of one lane gave; `terminated` and `truncated` are kept apart."""

    reward: Float[Array, ""]
    next_observation: Float[Array, " obs"]  # the true last one, also where the episode ended
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]  # by the time limit, by the task, or because the simulation diverged
    diverged: Bool[Array, ""]  # the transition is not to be learned from
    metrics: dict[str, Array]  # those of the task, success, and return and length of the episode up to this step

    @property
    def done(self) -> Array:
        """Whether the episode ended."""
        return self.terminated | self.truncated


class Batch:
    """One or several tasks of the same physics on MJX; `task` below is an index into them.

    Tasks that differ in their rewards alone share one compiled program: every lane computes the rewards of all, which
    costs next to nothing beside a step of the simulator, and keeps its own.
    """

    def __init__(self, tasks: Sequence[Task], episode_steps: int | None = None) -> None:
        """Put the model on the device; episodes are cut after `episode_steps`, or at the task's horizon if sooner.

        Raises QomposeError if mujoco-mjx is missing, it does not know something in the scene, or tasks do not match.
        """
        self._mjx = _import_mjx()
        if not tasks:
            raise QomposeError("there is no task to simulate; give at least one")
        self.tasks, first = tuple(tasks), tasks[0]
        for other in tasks[1:]:
            _check_same_physics(first, other)
        if type(first).disturb is not Task.disturb:
            raise QomposeError(f"{first.name} disturbs the simulation, which MJX cannot do here; use the C environment")
        self.observation_size, self.action_size = first.observation_size, first.action_size
        self.reset_uniforms = first.reset_uniforms
        self.episode_steps = min(episode_steps or first.horizon, first.horizon)
        try:
            self._model = self._mjx.put_model(compile_scene(first.batched_scene()))
        except NotImplementedError as error:
            raise QomposeError(f"{first.name}: MJX cannot simulate its scene: {error}") from None
        self._data = self._mjx.make_data(self._model)

    def of_whole_episodes(self) -> Batch:
        """The same, with episodes that last the task's horizon."""
        whole = copy.copy(self)
        whole.episode_steps = self.tasks[0].horizon
        return whole

    def begin(self, u: Float[Array, " uniforms"]) -> Lane:
        """A fresh episode from uniforms (reset_uniforms,) in [0, 1): the same start as on C MuJoCo."""
        first = self.tasks[0]
        qpos, qvel = first.reset(u)
        memory = first.begin_memory(u) if first.memory_size else jnp.zeros(0)
        data = self._mjx.kinematics(self._model, self._data.replace(qpos=qpos, qvel=qvel))
        return self._lane(data, memory, jnp.zeros((), jnp.int32), jnp.zeros(()))

    def step(
        self, lane: Lane, action: Float[Array, " act"], u: Float[Array, " uniforms"], task: Int[Array, ""]
    ) -> tuple[Lane, Outcome]:
        """One control step; a lane that ends goes on from the start that `u` stands for."""
        action = jnp.clip(action, -1.0, 1.0)
        after = self._advance(lane, action)
        good = _is_good(after)
        # As on C MuJoCo a lane that diverged keeps the state from before the step, and its episode ends.
        after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, lane)
        reward = self._pick(task, lambda each: each.reward(lane.readings, action, after.readings)[0])
        terminated = self._pick(task, lambda each: each.terminated(after.readings)) & good
        elapsed, total = lane.elapsed + 1, lane.total + reward
        truncated = (elapsed >= self.episode_steps) | ~good
        if self.tasks[0].truncates:
            truncated = truncated | self.tasks[0].truncated(after.readings)
        metrics = self._pick(task, lambda each: each.metrics(after.readings))
        metrics["success"] = self._pick(task, lambda each: each.success(after.readings))
        metrics |= {"return": total, "length": elapsed}
        after = eqx.tree_at(lambda x: (x.elapsed, x.total), after, (elapsed, total))
        outcome = Outcome(reward, after.observation, terminated, truncated, ~good, metrics)
        following = jax.tree.map(lambda new, old: jnp.where(outcome.done, new, old), self.begin(u), after)
        return following, outcome

    def _advance(self, lane: Lane, action: Array) -> Lane:
        data = self._data.replace(qpos=lane.qpos, qvel=lane.qvel, qacc_warmstart=lane.warmstart, ctrl=action)
        substeps = self.tasks[0].substeps
        data = lax.fori_loop(0, substeps, lambda _, data: self._mjx.step(self._model, data), data)
        # After a step positions of bodies and sites lag half a step behind qpos; kinematics brings them up to date.
        return self._lane(self._mjx.kinematics(self._model, data), lane.memory, lane.elapsed, lane.total)

    def _lane(self, data: Any, memory: Array, elapsed: Array, total: Array) -> Lane:
        first = self.tasks[0]
        readings = first.read(data)
        if first.memory_size:
            memory, readings = first.remember(memory, readings)
        observation = first.observe(readings)
        lane = Lane(data.qpos, data.qvel, data.qacc_warmstart, memory, readings, observation, elapsed, total)
        # Weak types would make the second step another program than the first.
        return jax.tree.map(lambda leaf: lax.convert_element_type(leaf, leaf.dtype), lane)

    def _pick(self, task: Array, function: Any) -> Any:
        values = [function(each) for each in self.tasks]
        return jax.tree.map(lambda *each: jnp.stack(each)[task], *values)


def _is_good(lane: Lane) -> Array:
    parts = [jnp.all(jnp.abs(leaf) <= LIMIT) for leaf in (lane.qpos, lane.qvel, lane.observation)]  # NaN is not good
    return jnp.all(jnp.stack(parts))


def _check_same_physics(first: Task, other: Task) -> None:
    """Tasks of one program share simulator, starts and readings; the reward is what may differ."""
    u = np.random.default_rng(0).random((64, first.reset_uniforms))
    same = type(first) is type(other) and first.reset_uniforms == other.reset_uniforms
    if same:
        models = [compile_scene(task.batched_scene()) for task in (first, other)]
        # Everything that is simulated: markers of goals are fixed bodies that touch nothing.
        names = ("nq", "nv", "nu", "dof_damping", "dof_armature", "dof_M0", "jnt_range", "site_pos", "actuator_gear")
        same = all(np.array_equal(getattr(models[0], name), getattr(models[1], name)) for name in names)
        same = same and all(np.array_equal(a, b) for a, b in zip(first.reset(u), other.reset(u), strict=True))
    if not same:
        raise QomposeError(f"{first.name} and {other.name} differ in more than their rewards; simulate them apart")


def _import_mjx() -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what else is not installed
            from mujoco import mjx
    except ImportError:
        raise QomposeError("this needs MJX; install it with: pip install 'qompose[gpu]'") from None
    return mjx
