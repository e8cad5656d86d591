import pytest

import qompose as qp
from qompose.paper.films import make_film
from qompose.tasks.pusher import Pusher
from qompose.view import video


@pytest.fixture
def scenes(monkeypatch):
    monkeypatch.setattr(Pusher, "horizon", 4)
    skill = qp.load("push-left", replay=False)
    return [(skill, "PushLeft", {}, "left"), (skill, "PushBottom", {}, "and elsewhere")]


def test_a_film_is_made_once(tmp_path, scenes):
    path = tmp_path / "film.mp4"
    assert make_film(path, lambda: scenes) == {"film": str(path)}
    assert path.stat().st_size > 1000
    assert make_film(path, lambda: pytest.fail("it is there")) == {"film": str(path)}


def test_where_none_can_be_made_the_figure_says_why(tmp_path, scenes):
    found = make_film(tmp_path / "film.avi", lambda: scenes)
    assert list(found) == ["film_note"] and found["film_note"].startswith("no film: ") and ".mp4" in found["film_note"]
    assert not list(tmp_path.iterdir())


def test_the_film_is_of_the_episodes_that_are_measured_and_as_long_as_it_is_told(tmp_path, scenes, monkeypatch):
    told = {}
    monkeypatch.setattr(video, "record_many", lambda scenes, path, **words: told.update(words))
    make_film(tmp_path / "film.mp4", lambda: scenes, episode_steps=9)
    assert (told["seed"], told["episode_steps"], told["mode"]) == (1000, 9, "best")
