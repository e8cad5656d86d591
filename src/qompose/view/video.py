"""Videos of skills at work, without a display."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from qompose.envs.watchdog import PATIENCE
from qompose.evaluation import check_spaces, choose_task, skill_policy
from qompose.skill.artifact import Skill
from qompose.types import QomposeError
from qompose.view.drawing import write_caption
from qompose.view.encode import write_film
from qompose.view.stage import Stage, open_stage

FASTEST, SLOWEST = 50.0, 10.0  # pictures per second: GIF players go no faster, and slower is tedious to watch
HOLD = 0.7  # s: how long the end of an episode stays

Scene = tuple[Skill, str | None, dict[str, Any] | None, str | None]  # skill, env, options, caption


class Moment(NamedTuple):
    """One step of an episode that is being filmed."""

    step: int
    observation: np.ndarray  # (obs,)
    total: float  # return so far
    figures: dict[str, float]
    over: bool


def record(
    skill: Skill,
    path: str | os.PathLike[str],
    *,
    env: str | None = None,
    options: dict[str, Any] | None = None,
    episodes: int = 2,
    mode: str = "sample",
    seed: int = 0,
    size: int = 480,
    episode_steps: int | None = None,
    meshes: str | os.PathLike[str] | None = None,
    env_timeout: float = PATIENCE,
    overwrite: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a video of a skill, .mp4 or .gif, by default on the task it was trained for; see `record_many`."""
    return record_many(
        [(skill, env, options, None)], path,
        episodes=episodes, mode=mode, seed=seed, size=size, episode_steps=episode_steps, meshes=meshes,
        env_timeout=env_timeout, overwrite=overwrite, on_step=on_step,
    )  # fmt: skip


def record_many(
    scenes: Sequence[Scene],
    path: str | os.PathLike[str],
    *,
    episodes: int = 1,
    mode: str = "sample",
    seed: int = 0,
    size: int = 480,
    episode_steps: int | None = None,
    meshes: str | os.PathLike[str] | None = None,
    env_timeout: float = PATIENCE,
    overwrite: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write one video of several skills, one after the other: (skill, env, options, caption) each.

    It plays in real time, or at 10 pictures a second where that is faster. Returns what was written and with which
    `renderer`: "mujoco-egl" and the like, "drawing" where OpenGL does not work (`note` says why), or "gymnasium" for
    environments that draw themselves. `size`: of the pictures, in pixels. `episode_steps`: of an episode, in place of
    the task's horizon; episodes of a foreign environment are only cut. `env_timeout`: seconds that a foreign
    environment may take to be made, for one step, and for one picture. `meshes` is a directory of meshes of Sawyer's
    links: base, l0 to l6 and head, .stl or .obj, which are drawn in place of its primitives. `on_step` is told how many
    steps are done, and of how many at most. Raises QomposeError for an unknown environment or suffix, a file that
    exists, meshes that cannot be compiled, and missing PyAV.
    """
    if not scenes:
        raise QomposeError("there is nothing to record; give at least one skill")
    if episodes < 1:
        raise QomposeError(f"episodes is {episodes}; it must be at least 1")
    target = Path(path)
    with ExitStack() as stack:
        how = size, episode_steps, meshes, env_timeout
        stages = [stack.enter_context(closing(_open(*scene[:3], *how))) for scene in scenes]
        stride = math.ceil(stages[0].fps / FASTEST)
        fps = max(stages[0].fps / stride, SLOWEST)
        film = stack.enter_context(write_film(target, fps, overwrite=overwrite))
        frames, done, total = 0, 0, episodes * sum(stage.steps for stage in stages)
        report: list[dict[str, Any]] = []
        for (skill, _, _, caption), stage in zip(scenes, stages, strict=True):
            film.cut()
            for episode in range(episodes):
                for moment in _play(skill, stage, mode, seed, episode):
                    if moment.step % stride == 0 or moment.over:
                        picture = _draw(moment, stage, caption or f"{stage.lockstep.env_id}: {skill.name}")
                        for _ in range(1 + round(HOLD * fps) if moment.over else 1):
                            film.add(picture)
                            frames += 1
                    if on_step is not None:
                        on_step(done + moment.step, total)
                done += stage.steps
                facts = {"caption": caption, "skill": skill.name, "env": stage.lockstep.env_id}
                report.append({**facts, "return": moment.total, "length": moment.step, **moment.figures})
        if on_step is not None:
            on_step(total, total)
    return {
        "path": str(target),
        "renderer": " and ".join(dict.fromkeys(stage.renderer for stage in stages)),
        "note": next((stage.note for stage in stages if stage.note), ""),
        "codec": film.codec,
        "frames": frames,
        "fps": fps,
        "speed": fps * stride / stages[0].fps,
        "bytes": target.stat().st_size,
        "episodes": report,
    }


def _open(skill: Skill, env: str | None, options: dict[str, Any] | None, *how: Any) -> Stage:
    env, options = choose_task(skill, env, options)
    stage = open_stage(env, options, *how)
    try:
        check_spaces(skill, stage.lockstep)
    except QomposeError:
        stage.close()
        raise
    return stage


def _play(skill: Skill, stage: Stage, mode: str, seed: int, episode: int) -> Iterator[Moment]:
    """One episode, from its first picture to its last; episode 0 resets under `seed`, the others go on from there."""
    lockstep = stage.lockstep
    policy = skill_policy(skill, mode, seed + episode)
    observations = lockstep.reset(seed if episode == 0 else None)
    total, over = 0.0, False
    for step in range(stage.steps + 1):
        if step > 0:
            result = lockstep.step(policy(observations, step - 1))
            observations, total = result.current, total + float(result.reward.sum())
            over = bool(result.episodes) or result.diverged > 0 or step == stage.steps
        yield Moment(step, observations[0], total, stage.figures(), over)
        if over:
            return


def _draw(moment: Moment, stage: Stage, caption: str) -> Image.Image:
    time = f"step {moment.step}" if stage.renderer == "gymnasium" else f"{moment.step / stage.fps:.1f} s"
    distance = moment.figures.get("distance")
    about = f"return {moment.total:.1f}" if distance is None else f"distance {distance:.3f} m"
    about += "   touched" if moment.figures.get("collided") else ""
    return write_caption(stage.picture(moment.observation), caption, f"{time}   {about}")
