"""N copies of one task on C MuJoCo, stepped together: what the environments share."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np

from qompose.tasks.task import PEAKS, Task
from qompose.types import QomposeError

LIMIT = float(mujoco.mjMAXVAL)  # beyond this MuJoCo calls a coordinate diverged, and so do we
STATE = mujoco.mjtState.mjSTATE_INTEGRATION
FAULTS = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADQACC) + 1)  # and BADQVEL between

_log = logging.getLogger(__name__)


class Lanes:
    """Lanes of one task: simulators, the randomness of their resets, and their last readings.

    Episode e of lane i under seed s starts from `SeedSequence(s, spawn_key=(i, e))`: which numbers a lane draws depends
    on nothing that happened before, three integers are the whole random state, and `default_rng(s)` is another stream.
    """

    def __init__(self, task: Task, count: int, first_lane: int = 0) -> None:
        """Build `count` simulators; their randomness is that of lanes first_lane, first_lane + 1, ..."""
        if mujoco.get_mju_user_warning() is None:  # else MuJoCo prints, and writes MUJOCO_LOG.TXT where it stands
            mujoco.set_mju_user_warning(_log.warning)
        self.task, self.count = task, count
        self.model = task.model()
        self.datas = [mujoco.MjData(self.model) for _ in range(count)]
        self.seed: int | None = None
        self.episode = np.zeros(count, np.int64)
        self._lane = np.arange(first_lane, first_lane + count)
        collected = [name for name in task.data_fields if name != PEAKS]
        self._fields: dict[str, np.ndarray] = {
            name: np.zeros((count, *getattr(self.datas[0], name).shape)) for name in collected
        }
        # Views into the simulators' memory, taken once: fetching an attribute costs as much as a small copy.
        self._views = [
            [(rows[lane], getattr(data, name)) for name, rows in self._fields.items()]
            for lane, data in enumerate(self.datas)
        ]
        if PEAKS in task.data_fields:
            self._fields[PEAKS] = np.zeros((count, self.model.nsensordata))
        self._sensors = [data.sensordata for data in self.datas]
        self._controls = [data.ctrl for data in self.datas]
        self._faults = [data.warning.number[FAULTS] for data in self.datas]
        # Sensors are measured by a step only, so that a restored state must bring them along.
        self._measured = [name for name in self._fields if name in ("sensordata", PEAKS)]
        self._memory, self._memory_before = (np.zeros((count, task.memory_size)) for _ in range(2))
        self.readings: dict[str, np.ndarray] = {}
        self.truncated = np.zeros(count, bool)  # by the task, in the last step

    def begin(self, mask: np.ndarray, seed: int | None = None) -> None:
        """Start a new episode in the lanes of `mask` (lanes,): the first under a new seed, else the next one."""
        if seed is not None and not 0 <= seed < 2**63:
            raise QomposeError(f"seed={seed}: give a whole number from 0 to 2**63 - 1")
        if seed is not None:
            self.seed, self.episode[mask] = seed, 0
        elif self.seed is None:
            self.seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 1)
        else:
            self.episode[mask] += 1
        for lane in np.flatnonzero(mask).tolist():
            key = (int(self._lane[lane]), int(self.episode[lane]))
            rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
            data = self.datas[lane]
            mujoco.mj_resetData(self.model, data)
            u = rng.random(self.task.reset_uniforms)
            data.qpos[:], data.qvel[:] = self.task.reset(u)
            if self.task.memory_size:
                self._memory[lane] = self.task.begin_memory(u)
            if PEAKS in self._fields:
                self._fields[PEAKS][lane] = 0.0
            self._refresh(lane)
        if self.task.memory_size:  # the other lanes have remembered this state already
            self._memory[~mask] = self._memory_before[~mask]
        self.readings = self._read()

    def advance(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take one control step with actions (lanes, act); return rewards, terminated and diverged, each (lanes,).

        A lane that diverged keeps the readings from before the step.
        Raises QomposeError for actions of the wrong shape or that are not finite; beyond [-1, 1] they are clipped.
        """
        actions = self._check(actions)
        before = self.readings
        held = {name: rows.copy() for name, rows in self._fields.items()}
        model, substeps = self.model, self.task.substeps
        for lane, data in enumerate(self.datas):
            self._controls[lane][:] = actions[lane]
            if self.task.memory_size:
                self.task.disturb(data, self._memory[lane])
            if PEAKS in self._fields:
                self._step_watching(lane)
            else:
                mujoco.mj_step(model, data, nstep=substeps)
            self._refresh(lane)
        diverged = self._diverged()
        if diverged.any():
            for name, rows in self._fields.items():
                rows[diverged] = held[name][diverged]
            _log.warning("simulation diverged in lanes %s: episodes cut short", np.flatnonzero(diverged).tolist())
        self.readings = self._read()
        reward, _ = self.task.reward(before, actions, self.readings)
        if self.task.truncates:
            self.truncated = np.asarray(self.task.truncated(self.readings))
        return reward, self.task.terminated(self.readings) & ~diverged, diverged

    def observe(self) -> np.ndarray:
        """Return the observations (lanes, obs), float32, a fresh array."""
        return self.task.observe(self.readings).astype(np.float32)

    def judge(self) -> dict[str, np.ndarray]:
        """Return the metrics of the task and whether it is solved, each a fresh array (lanes,)."""
        success = np.asarray(self.task.success(self.readings))
        metrics = {name: np.array(value) for name, value in self.task.metrics(self.readings).items()}
        return {**metrics, "success": success, "is_success": success.copy()}

    def get_state(self) -> dict[str, np.ndarray]:
        """Return everything that the next steps depend on."""
        size = mujoco.mj_stateSize(self.model, STATE)
        physics = np.zeros((self.count, size))
        for lane, data in enumerate(self.datas):
            mujoco.mj_getState(self.model, data, physics[lane], STATE)
        seed = np.array(-1 if self.seed is None else self.seed, np.int64)
        state = {"physics": physics, "episode": self.episode.copy(), "seed": seed}
        if self.task.memory_size:
            state["memory"] = self._memory_before.copy()
        return state | {name: self._fields[name].copy() for name in self._measured}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state of `get_state`, bit for bit."""
        expected = {name: value.shape for name, value in self.get_state().items()}
        found = {name: value.shape for name, value in state.items() if name in expected}
        if found != expected:
            raise QomposeError(f"not a state of {self.count} lanes of {self.task.name}: {found}, needed {expected}")
        for lane, data in enumerate(self.datas):
            mujoco.mj_resetData(self.model, data)
            mujoco.mj_setState(self.model, data, np.ascontiguousarray(state["physics"][lane], np.float64), STATE)
            self._refresh(lane)
        for name in self._measured:
            self._fields[name][:] = state[name]
        if self.task.memory_size:
            self._memory[:] = state["memory"]
        self.episode[:] = state["episode"]
        self.seed = None if state["seed"] < 0 else int(state["seed"])
        self.readings = self._read()

    def _check(self, actions: Any) -> np.ndarray:
        actions = np.asarray(actions, np.float64)
        if actions.shape != (self.count, self.task.action_size):
            expected = (self.count, self.task.action_size)
            raise QomposeError(f"{self.task.name}: actions of shape {actions.shape}, needed {expected}")
        finite = np.isfinite(actions).all(axis=-1)
        if not finite.all():
            lane = int(np.argmin(finite))
            raise QomposeError(f"{self.task.name}: the action of lane {lane} is not finite: {actions[lane].tolist()}")
        return np.clip(actions, -1.0, 1.0)

    def _step_watching(self, lane: int) -> None:
        data, sensors, peaks = self.datas[lane], self._sensors[lane], self._fields[PEAKS][lane]
        peaks[:] = -np.inf
        for _ in range(self.task.substeps):
            mujoco.mj_step(self.model, data)
            np.maximum(peaks, sensors, out=peaks)

    def _refresh(self, lane: int) -> None:
        # After mj_step positions of bodies and sites lag half a step behind qpos; kinematics brings them up to date.
        mujoco.mj_kinematics(self.model, self.datas[lane])
        for row, view in self._views[lane]:
            row[...] = view

    def _read(self) -> dict[str, np.ndarray]:
        readings = self.task.read(SimpleNamespace(**self._fields))
        if self.task.memory_size:
            self._memory_before = self._memory.copy()
            self._memory[:], readings = self.task.remember(self._memory, readings)
        return {name: np.array(value) for name, value in readings.items()}

    def _diverged(self) -> np.ndarray:
        bad = np.array([faults.any() for faults in self._faults])
        for rows in self._fields.values():
            flat = rows.reshape(self.count, -1)
            bad |= ~(np.abs(flat) <= LIMIT).all(axis=-1)  # written so that NaN counts as bad
        return bad
