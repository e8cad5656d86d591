import os
import time

import gymnasium
import numpy as np
import pytest

from qompose.tasks import make_task
from qompose.types import QomposeError
from qompose.view.stage import open_stage


class Foreign(gymnasium.Env):
    """Draws itself as a picture whose grey is the step; ends after 5 steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self, render_mode=None, fault=None):
        self.render_mode, self.fault = render_mode, fault
        time.sleep(30.0 if fault == "slow to make" else 0.0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(2, np.float32), 1.0, self.count == 5, False, {}

    def render(self):
        time.sleep(30.0 if self.fault == "slow to draw" else 0.0)
        if self.fault == "raises":
            raise ValueError("no\nscreen")
        if self.fault == "grey":
            return np.zeros((30, 40), np.uint8)
        return np.full((30, 40, 3), 20 * self.count, np.uint8)


gymnasium.register("StageForeign-v0", Foreign, max_episode_steps=7)
gymnasium.register("StageEndless-v0", Foreign)


def grey(stage):
    return stage.picture(np.zeros(2, np.float32)).getpixel((0, 0))[0]


def test_task_keeps_its_horizon_speed_and_figures(no_opengl):
    stage = open_stage("qompose:PushLeft-v0", {}, 64)
    observations = stage.lockstep.reset(3)
    assert (stage.steps, stage.fps) == (300, 20.0)
    for _ in range(3):
        observations = stage.lockstep.step(np.ones((1, 3))).current
    distance = abs(observations[0, make_task("PushLeft").observation_names.index("puck_x")] + 1.0)
    assert stage.figures()["distance"] == pytest.approx(distance, abs=1e-6)
    stage.close()


def test_task_starts_as_lane_0_of_an_evaluation(no_opengl):
    from qompose.envs.lockstep import Lockstep

    stage, lanes = open_stage("PushLeft", {}, 64), Lockstep.make("PushLeft", 2)
    for seed in (7, None):
        assert np.array_equal(stage.lockstep.reset(seed)[0], lanes.reset(seed)[0])
    stage.close()


def test_without_opengl_a_task_is_drawn_and_says_why(no_opengl):
    stage = open_stage("PushLeft", {}, 64)
    assert stage.renderer == "drawing" and stage.note == "drawn flat, OpenGL does not work: no driver; install EGL"
    assert stage.picture(stage.lockstep.reset(0)[0]).size == (64, 64)
    stage.close()


def test_renderer_that_fails_only_here_falls_back_to_drawing(monkeypatch):
    from qompose.view import stage as module
    from qompose.view.graphics import Graphics

    def refuse(*_):
        raise QomposeError("cannot draw here (context lost)")

    monkeypatch.setattr(module, "probe_graphics", lambda: Graphics("egl"))
    monkeypatch.setattr(module, "Renderer", refuse)
    stage = open_stage("PushLeft", {}, 64)
    assert stage.renderer == "drawing" and "context lost" in stage.note
    stage.close()


def test_foreign_environment_draws_itself_until_its_last_state():
    stage = open_stage("StageForeign-v0", {}, 64)
    stage.lockstep.reset(0)
    assert (stage.steps, stage.fps, stage.renderer, grey(stage)) == (7, 100.0, "gymnasium", 0)
    for count in range(1, 6):
        step = stage.lockstep.step(np.zeros((1, 1)))
        assert grey(stage) == 20 * count
    assert step.episodes and stage.figures() == {}
    stage.close()


def test_environment_without_a_time_limit_is_cut():
    stage = open_stage("StageEndless-v0", {}, 64)
    assert stage.steps == 1000
    stage.close()
    assert open_stage("StageEndless-v0", {}, 64, episode_steps=3).steps == 3


def test_an_episode_of_ours_may_be_shown_for_longer_than_its_horizon():
    assert [open_stage("SawyerStack", {}, 64, episode_steps=steps).steps for steps in (None, 3, 240)] == [160, 3, 240]


@pytest.mark.parametrize(("fault", "reason"), [("raises", "ValueError: no screen"), ("grey", r"uint8 \[30, 40\]")])
def test_foreign_environment_that_cannot_draw_is_one_line(fault, reason):
    stage = open_stage("StageForeign-v0", {"fault": fault}, 64)
    stage.lockstep.reset(0)
    with pytest.raises(QomposeError, match=f"StageForeign-v0 cannot draw itself: .*{reason}") as error:
        grey(stage)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fault", ["slow to make", "slow to draw"])
def test_a_foreign_environment_that_takes_too_long_is_given_up(fault):
    with pytest.raises(QomposeError, match=r"StageForeign-v0 cannot .* no answer in 0\.2 s"):
        stage = open_stage("StageForeign-v0", {"fault": fault}, 64, env_timeout=0.2)
        stage.lockstep.reset(0)
        grey(stage)


def test_environment_variables_are_as_before(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    stage = open_stage("StageForeign-v0", {}, 64)
    stage.lockstep.reset(0)
    grey(stage)
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("PushLeft", {}, 8), "size is 8; give 64 to 960"),
        (("PushLeft", {}, 64, 0), "episode_steps is 0"),
        (("PushLeft", {"goal": 1}, 64), "no option 'goal'"),
        (("PushLeftt", {}, 64), "did you mean PushLeft"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(QomposeError, match=message):
        open_stage(*arguments)
