import dataclasses

import numpy as np
import pytest
from PIL import Image

from qompose.envs.gym import TaskEnv
from qompose.tasks import make_task
from qompose.types import QomposeError
from qompose.view.drawing import Drawing, write_caption


def _find(picture, colour):
    pixels = np.asarray(picture).astype(int)
    rows, columns = np.nonzero((np.abs(pixels - colour) < 30).all(axis=-1))
    return np.array([columns.mean(), rows.mean()])


PUCK, FORK = (191, 38, 51), (217, 115, 51)


def test_puck_is_drawn_where_it_was_observed():
    task = make_task("PushLeft")
    observation = np.zeros(12, np.float32)
    observation[task.observation_names.index("puck_x")] = -0.75
    observation[task.observation_names.index("puck_y")] = 0.5
    picture = Drawing(task, 200).draw(observation)
    half = 4.3 * np.tan(np.pi / 8)  # metres from the middle to the edge
    assert _find(picture, PUCK) == pytest.approx([100 - 0.75 / half * 100, 100 - 0.5 / half * 100], abs=1.0)


def test_drawing_agrees_with_the_rendered_picture():
    env = TaskEnv("PushBottomLeft", render_mode="rgb_array", width=240, height=240)
    observation, _ = env.reset(seed=3)
    for _ in range(20):
        observation, *_ = env.step(np.array([-1.0, 1.0, -1.0]))
    try:
        rendered = env.render()
    except QomposeError as error:
        pytest.skip(str(error))
    drawn = Drawing(env.task, 240).draw(observation)
    for colour in (PUCK, FORK):
        assert _find(drawn, colour) == pytest.approx(_find(rendered, colour), abs=6)
    env.close()


def test_every_task_can_be_drawn_from_its_observation():
    for name in ("PushLeft", "PushBottomRight", "MultiGoal"):
        task = make_task(name)
        picture = np.asarray(Drawing(task, 96).draw(np.zeros(task.observation_size, np.float32)))
        assert picture.shape == (96, 96, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_task_that_does_not_observe_its_joints_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Blind(type(make_task("MultiGoal"))):
        observation_names = ("x", "distance")

    with pytest.raises(QomposeError, match="Blind cannot be drawn without OpenGL"):
        Drawing(Blind("Blind"), 64)


def test_drawing_does_not_touch_the_shared_model():
    task = make_task("PushLeft")
    before = task.model().geom_rgba.copy(), task.model().qpos0.copy()
    Drawing(task, 64).draw(np.ones(12, np.float32))
    assert np.array_equal(before[0], task.model().geom_rgba) and np.array_equal(before[1], task.model().qpos0)


def test_caption_lies_over_the_top_edge_only():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8))
    captioned = write_caption(picture, "PushLeft: α = 0.1", "1.0 s")
    changed = (np.asarray(captioned) != np.asarray(picture)).any(axis=(1, 2))
    height = int(changed.sum())
    assert changed[:height].all() and 10 < height < 40
    blank = np.asarray(write_caption(picture, "", ""))
    dark = (np.asarray(captioned).astype(int) - blank).sum(axis=-1) < -100
    assert dark[:, :80].sum() > 30 and dark[:, 120:].sum() > 10  # words at both ends


def test_a_long_caption_leaves_room_for_what_is_on_the_right():
    picture = Image.new("RGB", (480, 480), "white")
    long, none = (np.asarray(write_caption(picture, left, "4.3 s   distance 0.01 m")) for left in ("W" * 200, ""))
    words = none[:30, 240:].min(axis=(0, 2)) < 128  # columns of the right half that the right text darkens
    first = 240 + int(np.argmax(words))
    assert np.array_equal(long[:, first:], none[:, first:]) and (long[:30, :200] < 128).any()
