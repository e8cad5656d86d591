import sys
from importlib import metadata

import pytest

from qompose import doctor
from qompose.doctor import examine
from qompose.view import graphics
from qompose.view.graphics import Graphics


@pytest.fixture(autouse=True)
def opengl(monkeypatch):
    monkeypatch.setattr(graphics, "probe_graphics", lambda: Graphics("egl"))


def named(checks):
    return {check.name: check for check in checks}


def declare(monkeypatch, requirements, versions):
    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "requires", lambda _: requirements)
    monkeypatch.setattr(metadata, "version", version)
    return doctor._packages()


def test_everything_is_tried_and_what_these_tests_need_works(tmp_path, capfd):
    checks = named(examine(tmp_path))
    assert list(checks) == [
        "python", "packages", "jax", "mujoco", "gymnasium", "opengl", "video", "processor", "memory", "output", "disk",
    ]  # fmt: skip
    for name in ("python", "jax", "gymnasium", "output"):
        assert checks[name].ok is True, checks[name]
    assert checks["mujoco"].ok is not False and str(tmp_path) in checks["output"].detail
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr().out == ""


def test_one_broken_part_does_not_hide_the_others(monkeypatch):
    for name in ("gymnasium", "av", "mujoco"):
        monkeypatch.setitem(sys.modules, name, None)
    checks = named(examine())
    for name in ("gymnasium", "mujoco"):
        assert checks[name].ok is False and "ModuleNotFoundError" in checks[name].detail
    assert checks["video"].ok is None and "pip install av" in checks["video"].advice
    assert checks["jax"].ok is True


def test_backend_that_breaks_mujoco_is_suspected(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setitem(sys.modules, "mujoco", None)
    assert named(examine())["mujoco"].advice.startswith("try without MUJOCO_GL=osmesa")


def test_package_outside_its_range_or_missing_fails_with_the_command(monkeypatch):
    check = declare(
        monkeypatch,
        ["jax>=0.7", "mujoco!=4.0.0,<5,>=3.3", "optax>=0.2", 'av>=14; extra == "video"'],
        {"jax": "0.10.2", "mujoco": "4.0.0"},
    )
    assert check.ok is False and check.detail == "jax 0.10.2, mujoco 4.0.0, optax missing"
    assert check.advice == "pip install 'mujoco!=4.0.0,<5,>=3.3' 'optax>=0.2'"


def test_packages_within_their_ranges_pass(monkeypatch):
    check = declare(monkeypatch, ["jax>=0.7"], {"jax": "0.7"})
    assert check.ok is True and check.advice == ""


def test_source_tree_without_installation_is_no_failure(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert doctor._packages().ok is None


def test_python_outside_the_range_fails(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.1")
    check = doctor._python()
    assert check.ok is False and check.advice.startswith("use Python ")


def test_faulty_mujoco_is_pointed_out(monkeypatch):
    import mujoco

    for version, ok in (("4.0.0", None), ("4.0.1", True)):
        monkeypatch.setattr(mujoco, "__version__", version)
        assert doctor._mujoco().ok is ok


def test_machine_without_opengl_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr(graphics, "probe_graphics", lambda: Graphics(None, "no driver", "install EGL"))
    check = doctor._graphics()
    assert (check.ok, check.advice) == (None, "install EGL") and "no driver" in check.detail


def test_folder_that_cannot_be_written_fails(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    check = named(examine(tmp_path / "not" / "yet"))["output"]
    assert check.ok is False and "Permission denied" in check.detail


def test_little_memory_disk_and_few_cores_are_pointed_out(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_available_memory", lambda: 0.5)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: doctor.shutil._ntuple_diskusage(1, 1, 2**20))
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: {0}, raising=False)
    checks = named(examine(tmp_path))
    assert (checks["memory"].ok, checks["disk"].ok, checks["processor"].ok) == (None, False, None)
    assert all(checks[name].advice for name in ("memory", "disk", "processor"))
