"""What a task is: a model, where episodes start, what is read from the simulator, and what it is worth."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from qompose.types import Transition

if TYPE_CHECKING:
    import mujoco

Array = Any  # a NumPy or a JAX array: everything after `read` is written once for both
Readings = Mapping[str, Array]
PEAKS = "sensor_peaks"


@functools.lru_cache(maxsize=64)
def compile_scene(scene: str) -> mujoco.MjModel:
    """Return the model of an MJCF string. Models are shared between environments: read them, do not write."""
    import mujoco  # here, so that naming tasks needs no simulator

    return mujoco.MjModel.from_xml_string(scene)


@dataclasses.dataclass(frozen=True)
class Task(ABC):
    """A problem to be learned, free of any simulator loop.

    Functions that take readings work for NumPy and JAX arrays and over any leading axes. Actions are in [-1, 1].
    """

    name: str

    horizon: ClassVar[int]  # control steps per episode
    training_horizon: ClassVar[int | None] = None  # the same in training, where more starts are worth more than ends
    substeps: ClassVar[int]  # simulator steps per control step
    control_period: ClassVar[float]  # seconds per control step
    action_size: ClassVar[int]
    observation_names: ClassVar[tuple[str, ...]]
    terminates: ClassVar[bool]  # there are terminal states
    reset_uniforms: ClassVar[int]  # random numbers that one reset uses up
    truncates: ClassVar[bool] = False  # episodes may be cut short, see `truncated`
    memory_size: ClassVar[int] = 0  # numbers that a lane carries through an episode, see `remember`
    # Attributes of the simulator's data that `read` looks at; an environment collects exactly these over its lanes.
    # `PEAKS` among them: of every sensor the highest reading in the course of the control step.
    data_fields: ClassVar[tuple[str, ...]] = ("qpos", "qvel", "site_xpos")

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return len(self.observation_names)

    @abstractmethod
    def scene(self) -> str:
        """Return the MJCF of the task."""

    def batched_scene(self) -> str:
        """Return the MJCF of the same physics for MJX, from shapes that it collides exactly."""
        return self.scene()

    def model(self) -> mujoco.MjModel:
        """Return the compiled model, shared and read-only."""
        return compile_scene(self.scene())

    @abstractmethod
    def reset(self, u: Array) -> tuple[Array, Array]:
        """Return (qpos, qvel) of the start that the uniforms u (*batch, reset_uniforms) in [0, 1) stand for."""

    @abstractmethod
    def read(self, data: Any) -> dict[str, Array]:
        """Return named readings of anything with the attributes `data_fields`, leading axes being the batch."""

    @abstractmethod
    def observe(self, readings: Readings) -> Array:
        """Return the observation (*batch, observation_size)."""

    @abstractmethod
    def recall(self, observation: Array) -> dict[str, Array]:
        """Return the readings that an observation (*batch, observation_size) was made of: the inverse of `observe`.

        Those are all that `reward` and `terminated` look at; `success` and `metrics` may need more than is observed.
        """

    @abstractmethod
    def reward(self, before: Readings, action: Array, after: Readings) -> tuple[Array, dict[str, Array]]:
        """Return the reward (*batch,) and the weighted terms that add up to it."""

    @abstractmethod
    def success(self, readings: Readings) -> Array:
        """Return whether the task is solved in this state (*batch,)."""

    @abstractmethod
    def terminated(self, readings: Readings) -> Array:
        """Return whether this state ends the episode (*batch,). A time limit or a divergence never does."""

    @abstractmethod
    def metrics(self, readings: Readings) -> dict[str, Array]:
        """Return the numbers by which people judge the task, each (*batch,)."""

    def truncated(self, readings: Readings) -> Array:
        """Return whether to cut the episode here, as at a time limit (*batch,). Asked only if `truncates`."""
        raise NotImplementedError

    def begin_memory(self, u: Array) -> Array:
        """Return the memory (*batch, memory_size) that an episode begins with; u as in `reset`."""
        raise NotImplementedError

    def remember(self, memory: Array, readings: Readings) -> tuple[Array, dict[str, Array]]:
        """Return the memory (*batch, memory_size) after a step, and its readings with what the memory adds to them.

        For what one state does not tell: how long something has lasted, a smoothed force. Asked at the start of an
        episode and after every step of a task whose memory_size is not 0.
        """
        raise NotImplementedError

    def disturb(self, data: Any, memory: Array) -> None:  # noqa: B027 (most tasks disturb nothing)
        """Do to the simulator's data of one lane, before a step, what no action does; memory (memory_size,)."""

    def options(self) -> dict[str, Any]:
        """Return what was chosen about this task: `make_task(task.name, **task.options())` makes it again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "name"}


def relabel(task: Task, transitions: Transition) -> Transition:
    """Return the transitions with the rewards and terminal states that this task gives them, as float32.

    Data of one task become data of another with the same observations: r = reward(s, a, s') of stored s, a and s'.
    Rewards differ from those of the environment by the rounding of what was stored, and by nothing else.
    """
    before, after = task.recall(transitions.observation), task.recall(transitions.next_observation)
    reward, _ = task.reward(before, transitions.action, after)
    terminated = task.terminated(after)
    xp = terminated.__array_namespace__()
    return transitions._replace(reward=reward.astype(xp.float32), terminated=terminated.astype(xp.float32))
