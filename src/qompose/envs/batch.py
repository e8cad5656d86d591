"""A task × N on MJX: simulation as a pure function of one lane, to be vmapped and compiled.

The same starts, motion and rewards as on C MuJoCo, in float32. A lane that ends begins anew in the same step, and the
true last observation stays in what the step returns. Lanes may be of several tasks that differ in what they reward.
Needs the package mujoco-mjx (extra `gpu`). MJX has two implementations: its own in JAX, and MuJoCo Warp, which is taken
on a CUDA GPU where warp-lang is installed. The same tests compare both with C MuJoCo step by step, for the pusher and
the point mass (Warp's are skipped where it is missing); tasks with a memory (all of Sawyer's) are refused.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax import lax
from jax.extend.backend import backends
from jaxtyping import Array, Bool, Float, Int

from qompose.envs.lanes import LIMIT
from qompose.tasks.task import Task, compile_scene
from qompose.types import QomposeError

try:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what else is not installed
        from mujoco import mjx
        from mujoco.mjx.warp import WARP_INSTALLED
except ImportError:
    raise QomposeError("a batch needs MJX: pip install mujoco-mjx, or for a GPU '.[gpu]' in the source tree") from None


# Of products of matrices: a GPU would otherwise keep ten bits of each factor.
PRECISION = "highest"
# Steps of the solver's search along a line. MJX in JAX takes all that are allowed, to the same result; C MuJoCo and
# Warp stop when they are there.
LINE_SEARCH = 8

Simulator = Literal["jax", "warp"]
# Bits of Warp's `overflow` which say that contacts or constraints found no room: all but limits of iterations.
LOST = 0x1FF


def choose_simulator() -> Simulator:
    """Return "warp" on a CUDA GPU where warp-lang is installed, else "jax"."""
    return "warp" if WARP_INSTALLED and jax.default_backend() == "gpu" and "cuda" in backends() else "jax"


class Lane(eqx.Module):
    """Everything that the next step of one lane depends on."""

    which: Int[Array, ""]  # of the batch's tasks
    qpos: Float[Array, " nq"]
    qvel: Float[Array, " nv"]
    warmstart: Float[Array, " nv"]  # of the constraint solver
    readings: dict[str, Array]
    observation: Float[Array, " obs"]
    elapsed: Int[Array, ""]  # steps of the episode so far
    total: Float[Array, ""]  # rewards of the episode so far


class Outcome(eqx.Module):
    """What one step of one lane gave; `terminated` and `truncated` are kept apart."""

    reward: Float[Array, ""]
    next_observation: Float[Array, " obs"]  # the true last one, also where the episode ended
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]  # by the time limit, or because the simulation diverged
    diverged: Bool[Array, ""]  # the transition is not to be learned from
    metrics: dict[str, Array]  # those of the task, success, and return and length of the episode up to this step

    @property
    def done(self) -> Array:
        """Whether the episode ended."""
        return self.terminated | self.truncated


class Batch:
    """Tasks on MJX. Its functions are those of one lane: vmap them over as many as there are."""

    def __init__(
        self,
        *tasks: Task,
        episode_steps: int | None = None,
        simulator: Simulator | None = None,
        lanes: int | None = None,
    ) -> None:
        """Put the model on the device; episodes are cut after `episode_steps`, or at the tasks' horizon if sooner.

        Several tasks must be of one class, which sees to it that they move alike, and begin alike. Warp needs to know
        for how many `lanes` it is to hold contacts; with more, lanes for which there is no room count as diverged. If
        they are given, `simulator` is what `choose_simulator` says unless given; else it is the JAX implementation.
        Raises QomposeError for tasks that differ, for one that remembers, cuts its own episodes or disturbs the
        simulator, for a scene with something in it that MJX in JAX does not know, and for Warp where it is not
        installed or the lanes are missing.
        """
        task = tasks[0]
        if task.memory_size or task.truncates or type(task).disturb is not Task.disturb:
            raise QomposeError(f"{task.name} needs more than a batch on MJX simulates: use its Gymnasium environment")
        u = np.random.default_rng(0).random((64, task.reset_uniforms))
        for other in tasks[1:]:
            if type(other) is not type(task) or not np.array_equal(other.reset(u)[0], task.reset(u)[0]):
                raise QomposeError(f"{task.name} and {other.name} differ in more than their rewards: batch them apart")
        self.task, self.tasks = task, tasks
        self.episode_steps = min(episode_steps or task.horizon, task.horizon)
        self.simulator: Simulator = simulator or (choose_simulator() if lanes else "jax")
        try:
            self._model, self._data = _put(compile_scene(task.batched_scene()), self.simulator, lanes or 0)
        except NotImplementedError as error:
            raise QomposeError(f"{task.name}: MJX cannot simulate its scene: {error}") from None

    def begin(self, u: Float[Array, " uniforms"], which: Int[Array, ""] | int = 0) -> Lane:
        """Return a fresh episode of task `which` from uniforms (task.reset_uniforms,) in [0, 1): that of C MuJoCo."""
        qpos, qvel = self.task.reset(u)
        with jax.default_matmul_precision(PRECISION):
            data = mjx.kinematics(self._model, self._data.replace(qpos=qpos, qvel=qvel))
        return self._lane(data, jnp.asarray(which, jnp.int32), jnp.zeros((), jnp.int32), jnp.zeros(()))

    def step(self, lane: Lane, action: Float[Array, " act"], u: Float[Array, " uniforms"]) -> tuple[Lane, Outcome]:
        """Take one control step; a lane that ends goes on from the start that `u` stands for."""
        action = jnp.clip(action, -1.0, 1.0)
        after = self._advance(lane, action)
        good = _is_good(after)
        # As on C MuJoCo a lane that diverged keeps the state from before the step, and its episode ends.
        after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, lane)

        def judge(task: Task) -> Any:
            reward, _ = task.reward(lane.readings, action, after.readings)
            metrics = {**task.metrics(after.readings), "success": task.success(after.readings)}
            return reward, task.terminated(after.readings), metrics

        reward, terminated, metrics = self._ask(lane.which, judge)
        elapsed, total = lane.elapsed + 1, lane.total + reward
        outcome = Outcome(
            reward=reward,
            next_observation=after.observation,
            terminated=terminated & good,
            truncated=(elapsed >= self.episode_steps) | ~good,
            diverged=~good,
            metrics={**metrics, "return": total, "length": elapsed},
        )
        after = eqx.tree_at(lambda x: (x.elapsed, x.total), after, (elapsed, total))
        fresh = self.begin(u, lane.which)
        return jax.tree.map(lambda new, old: jnp.where(outcome.done, new, old), fresh, after), outcome

    def _ask(self, which: Array, judge: Callable[[Task], Any]) -> Any:
        """What the lane's own task says. All are asked: next to a step of the simulator that costs nothing."""
        answers = [judge(task) for task in self.tasks]
        return answers[0] if len(answers) == 1 else jax.tree.map(lambda *each: jnp.stack(each)[which], *answers)

    def _advance(self, lane: Lane, action: Array) -> Lane:
        data = self._data.replace(qpos=lane.qpos, qvel=lane.qvel, qacc_warmstart=lane.warmstart, ctrl=action)
        with jax.default_matmul_precision(PRECISION):
            data = lax.fori_loop(0, self.task.substeps, lambda _, data: mjx.step(self._model, data), data)
            # After a step positions of bodies and sites lag half a step behind qpos; kinematics brings them up to date.
            data = mjx.kinematics(self._model, data)
        if self.simulator == "warp":  # a lane that lost a contact is no better than one that diverged
            lost = (data._impl.overflow & LOST) != 0
            data = data.replace(qpos=jnp.where(lost, jnp.nan, data.qpos))
        return self._lane(data, lane.which, lane.elapsed, lane.total)

    def _lane(self, data: Any, which: Array, elapsed: Array, total: Array) -> Lane:
        readings = self.task.read(data)
        observation = self.task.observe(readings)
        lane = Lane(which, data.qpos, data.qvel, data.qacc_warmstart, readings, observation, elapsed, total)
        # Weak types would make the second step another program than the first.
        return jax.tree.map(lambda leaf: lax.convert_element_type(leaf, leaf.dtype), lane)


def _put(scene: mujoco.MjModel, simulator: Simulator, lanes: int) -> tuple[Any, Any]:
    """The model on the device, and the data that every step begins with."""
    model = mjx.put_model(scene, impl="jax")
    data = mjx.make_data(model, impl="jax")
    if simulator == "jax":
        search = min(model.opt.ls_iterations, LINE_SEARCH)
        return model.replace(opt=model.opt.replace(ls_iterations=search)), data
    if not WARP_INSTALLED:
        raise QomposeError("MuJoCo Warp is not installed: pip install 'mujoco-mjx[warp]', or choose simulator 'jax'")
    if lanes < 1:
        raise QomposeError("Warp needs to know how many lanes there will be: give lanes")
    warp = importlib.import_module("warp")
    warp.config.log_level = max(warp.config.log_level, warp.LOG_WARNING)  # it names every kernel that it compiles
    # Neither implementation resets a diverged state by itself; Warp refuses the flag that forbids it.
    scene = copy.copy(scene)
    scene.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    # Twice what the JAX implementation always holds: two capsules side by side are two contacts in Warp, one there.
    rows = {"naconmax": 2 * data._impl.ncon * lanes, "njmax": 2 * data._impl.nefc}
    return mjx.put_model(scene, impl="warp"), mjx.make_data(scene, impl="warp", **rows)


def _is_good(lane: Lane) -> Array:
    parts = [jnp.all(jnp.abs(leaf) <= LIMIT) for leaf in (lane.qpos, lane.qvel, lane.observation)]  # NaN is not good
    return jnp.all(jnp.stack(parts))
