import sys

import pytest

from qompose.envs.render import Renderer
from qompose.tasks import make_task
from qompose.types import QomposeError
from qompose.view import graphics
from qompose.view.graphics import probe_graphics


@pytest.fixture(autouse=True)
def fresh():
    probe_graphics.cache_clear()
    yield
    probe_graphics.cache_clear()


def test_probe_finds_what_the_renderer_can_do():
    try:
        Renderer(make_task("MultiGoal").model(), 8, 8).close()
        works = True
    except QomposeError:
        works = False
    found = probe_graphics()
    assert (found.backend is not None) == works
    assert works == (found.reason == "")


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ("import os; os.abort()", "the process ended with -6"),
        ("raise SystemExit('no such driver')", "no such driver"),
        ("class FatalError(Exception): __module__ = 'mujoco'\nraise FatalError('no context')", "no context"),
        ("import time; time.sleep(60)", "no picture within 0 s"),
        ("", "the process ended with 0"),
    ],
)
def test_driver_that_fails_in_any_way_is_reported_and_does_no_harm(monkeypatch, probe, reason):
    monkeypatch.setattr(graphics, "PROBE", probe)
    if "sleep" in probe:
        monkeypatch.setattr(graphics, "PATIENCE", 0.2)
    found = probe_graphics()
    assert found.backend is None and found.reason == reason and "apt install libegl1" in found.advice


def test_advice_names_the_setting_that_works(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")  # as MuJoCo leaves it behind
    wanted = "os.environ.get('MUJOCO_GL') == 'osmesa' and 'PYOPENGL_PLATFORM' not in os.environ"
    monkeypatch.setattr(graphics, "PROBE", f"import os; assert {wanted}; print('osmesa')")
    found = probe_graphics()
    assert found.backend is None and found.advice == "set MUJOCO_GL=osmesa before starting"


def test_asks_once_per_process(monkeypatch, tmp_path):
    log = tmp_path / "asked"
    monkeypatch.setattr(graphics, "PROBE", f"open({str(log)!r}, 'a').write('x'); print('egl')")
    assert probe_graphics() is probe_graphics() and log.read_text() == "x"


def test_module_in_the_working_directory_is_not_run(monkeypatch, tmp_path):
    (tmp_path / "mujoco.py").write_text("raise SystemExit('run by mistake')")
    monkeypatch.chdir(tmp_path)
    assert probe_graphics().reason != "run by mistake"


def test_missing_interpreter_is_reported(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "No such file" in probe_graphics().reason
