from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageSequence

from qompose.envs.lockstep import Lockstep
from qompose.types import QomposeError
from qompose.view import video
from qompose.view.graphics import probe_graphics
from qompose.view.video import record, record_many

SMALL = {"size": 64, "episode_steps": 4}


def frames_of(path):
    """(seconds, picture) of every frame."""
    with Image.open(path) as gif:
        return [
            (frame.info["duration"] / 1000, np.asarray(frame.convert("RGB")).astype(int))
            for frame in ImageSequence.Iterator(gif)
        ]


def test_video_shows_every_step_in_real_time_and_holds_the_end(make_skill, no_opengl, tmp_path):
    facts = record(make_skill(), tmp_path / "a.gif", episodes=1, **SMALL)
    seconds = [duration for duration, _ in frames_of(tmp_path / "a.gif")]
    assert sum(seconds) == pytest.approx((4 + 1) * 0.05 + video.HOLD, abs=0.06)
    assert facts["frames"] == 5 + 14 and (facts["fps"], facts["speed"]) == (20.0, 1.0)
    assert facts["bytes"] == (tmp_path / "a.gif").stat().st_size


def test_report_says_what_happened_in_every_episode(make_skill, no_opengl, tmp_path):
    facts = record(make_skill(), tmp_path / "a.gif", episodes=2, **SMALL)
    assert [(e["env"], e["skill"], e["length"]) for e in facts["episodes"]] == [("PushLeft", "left", 4)] * 2
    first, second = (e["distance"] for e in facts["episodes"])
    assert first != second and all(0.0 < d < 3.0 for d in (first, second))
    assert all(e["return"] < 0.0 for e in facts["episodes"])


def test_an_episode_whose_simulation_diverges_ends_there(make_skill, no_opengl, tmp_path, monkeypatch):
    real = Lockstep.step

    def step(self, actions):
        result = real(self, actions)
        return result._replace(diverged=1, episodes=[]) if self._steps == 2 else result

    monkeypatch.setattr(Lockstep, "step", step)
    facts = record(make_skill(), tmp_path / "a.gif", episodes=2, **SMALL)
    assert [episode["length"] for episode in facts["episodes"]] == [2, 4]


def test_same_seed_gives_the_same_film(make_skill, no_opengl, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        record(make_skill(), tmp_path / f"{name}.gif", episodes=1, seed=seed, **SMALL)
    a, b, c = ((tmp_path / f"{name}.gif").read_bytes() for name in "abc")
    assert a == b != c


def test_mp4_is_drawn_by_mujoco_where_it_can(make_skill, tmp_path):
    av = pytest.importorskip("av")
    backend = probe_graphics().backend
    facts = record(make_skill(), tmp_path / "a.mp4", episodes=1, **SMALL)
    assert facts["renderer"] == (f"mujoco-{backend}" if backend else "drawing")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert len(list(container.decode(video=0))) == facts["frames"]


def test_skills_follow_each_other_with_their_captions(make_skill, no_opengl, tmp_path):
    seen = []
    facts = record_many(
        [
            (make_skill(), None, None, "left"),
            (make_skill("PushBottom", "bottom"), "PushTo", {"goal_x": 0.5, "goal_y": 0.5}, None),
        ],
        tmp_path / "a.gif",
        on_step=lambda done, total: seen.append((done, total)),
        **SMALL,
    )
    assert [(e["caption"], e["env"]) for e in facts["episodes"]] == [("left", "PushLeft"), (None, "PushTo")]
    assert [done for done, _ in seen] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8] and {total for _, total in seen} == {8}
    assert facts["renderer"] == "drawing" and "no driver" in facts["note"]


def test_slow_task_is_played_faster(make_skill, no_opengl, tmp_path):
    facts = record(make_skill("MultiGoal"), tmp_path / "a.gif", episodes=1, **SMALL)
    assert (facts["fps"], facts["speed"]) == (10.0, 10.0)


def test_options_go_on_top_of_those_of_the_skill(make_skill, no_opengl, tmp_path):
    facts = record(make_skill(), tmp_path / "a.gif", options={"arm_weight": 100.0}, episodes=1, **SMALL)
    plain = record(make_skill(), tmp_path / "b.gif", episodes=1, **SMALL)
    assert facts["episodes"][0]["return"] < plain["episodes"][0]["return"] - 10.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 0}, "episodes is 0"),
        ({"env": "MultiGoal"}, "skill 'left' has 12 observations, the environment 2"),
        ({"mode": "greedy"}, "mode 'greedy' is unknown"),
        ({"env": "Nowhere"}, "there is no environment 'Nowhere'"),
    ],
)
def test_what_cannot_be_filmed_is_refused_and_leaves_nothing(make_skill, no_opengl, tmp_path, changes, message):
    with pytest.raises(QomposeError, match=message):
        record(make_skill(), tmp_path / "a.gif", **{**SMALL, **changes})
    assert list(tmp_path.iterdir()) == []


def test_a_skill_of_other_observations_is_not_filmed(make_skill, no_opengl, tmp_path):
    other = replace(make_skill(), observation={"size": 12, "names": [f"o{k}" for k in range(12)]})
    with pytest.raises(QomposeError, match="skill 'left' observes o0, the environment joint1_angle; use another"):
        record(other, tmp_path / "a.gif", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_film_is_refused(tmp_path):
    with pytest.raises(QomposeError, match="nothing to record"):
        record_many([], tmp_path / "a.gif")


def test_existing_file_is_refused_before_any_episode(make_skill, no_opengl, tmp_path):
    (tmp_path / "a.gif").write_bytes(b"precious")
    with pytest.raises(QomposeError, match="exists"):
        record(make_skill(), tmp_path / "a.gif", on_step=lambda *_: pytest.fail("an episode began"))
