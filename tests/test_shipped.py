import re
import shutil

import pytest

from qompose import compose, evaluate, shipped
from qompose.shipped import find_skill, load, shipped_skills
from qompose.skill.artifact import check_place
from qompose.types import QomposeError


@pytest.fixture
def package(tmp_path, monkeypatch, tiny_runs):
    """A package that ships one skill, besides a folder that holds none."""
    folder = tmp_path / "pretrained"
    shutil.copytree(tiny_runs["right"] / "skill", folder / "right")
    (folder / "notes").mkdir()
    monkeypatch.setattr(shipped, "SHIPPED", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_skills_that_come_with_the_package_are_found_by_name(package):
    assert shipped_skills() == {"right": package / "right"}
    assert find_skill("right") == package / "right" and load("right").name == "right"


def test_every_skill_in_this_package_loads():
    for name, path in shipped_skills().items():
        skill = load(name, replay=False)
        assert skill.name == name and (path / "manifest.json").exists()


def test_all_of_them_take_less_than_ten_megabytes():
    assert sum(file.stat().st_size for path in shipped_skills().values() for file in path.iterdir()) < 10e6


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["resample", "best"])
def test_stacking_and_avoiding_are_composed_as_the_readme_does(mode):
    composed = compose(load("sawyer-stack") & 3.0 * load("sawyer-avoid"), name="both", extract=False)
    result = evaluate(composed, "SawyerStackAvoid", 20, mode=mode)
    assert result.values("success").mean() >= 0.8 and not result.values("collided").any()


@pytest.mark.slow
def test_the_hand_is_within_two_centimetres_of_its_target():
    assert evaluate(load("sawyer-reach", replay=False), "SawyerReach", 20).values("distance").mean() <= 0.02


def test_skills_are_found_by_their_directory_and_by_their_run(tiny_runs):
    run = tiny_runs["top"]
    assert find_skill(run) == find_skill(run / "skill") == run / "skill"
    assert load(str(run)).name == "top"
    assert load(run, replay=False).replay is None and len(load(run).replay.reward) == 600


def test_a_directory_comes_before_a_shipped_skill_of_that_name(package, tmp_path, tiny_runs):
    shutil.copytree(tiny_runs["top"] / "skill", tmp_path / "right")
    assert load("right").name == "top"


def test_an_unknown_skill_is_refused_with_what_there_is(package):
    with pytest.raises(QomposeError, match=r"there is no skill 'wrong'; give the directory.*; shipped skills: right"):
        load("wrong")


def test_a_run_without_a_skill_says_how_to_go_on(tmp_path, tiny_runs):
    shutil.copytree(tiny_runs["right"], tmp_path / "run", symlinks=True)
    shutil.rmtree(tmp_path / "run" / "skill")
    with pytest.raises(
        QomposeError, match=r"is a run that has not finished; give its command \(command.txt\) again with --resume"
    ):
        load(tmp_path / "run")


def test_what_is_no_skill_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("file", "empty"):
        with pytest.raises(QomposeError, match=f"skill '.*{name}'") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_skill_that_an_interrupted_save_left_aside_is_named(tmp_path, tiny_skills):
    left = tiny_skills["right"].save(tmp_path / "x").rename(tmp_path / ".x.qompose-old")
    for act in (lambda: load(tmp_path / "x"), lambda: check_place(tmp_path / "x", overwrite=False)):
        with pytest.raises(QomposeError, match=rf"left it at '.*{re.escape(left.name)}'; rename that back"):
            act()


def test_a_name_that_no_file_can_have_is_refused_in_one_line():
    with pytest.raises(QomposeError, match=r"'xxx.* cannot be looked into") as caught:
        find_skill("x" * 5000)
    assert len(str(caught.value)) < 200
