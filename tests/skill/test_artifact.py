import copy
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from qompose import store
from qompose.skill import artifact
from qompose.skill.artifact import Skill, check_compatible, load
from qompose.skill.network import Network, expected_arrays
from qompose.types import QomposeError, Transition

CRITIC = {"kind": "critic", "hidden": [8, 6], "layer_norm": True}
SAMPLER = {"kind": "sampler", "hidden": [8, 6], "layer_norm": False}
SUM = {"kind": "sum", "weights": [0.5, 0.5], "of": [CRITIC, CRITIC]}
CANDIDATES = {"kind": "candidates", "of": [SAMPLER, SAMPLER]}
OR = {"kind": "or", "weights": [0.25, 0.75], "temperature": 0.1, "of": [CRITIC, CRITIC]}
NESTED = {
    "kind": "prefer", "slack": 0.5, "width": 0.1, "strength": 1.0, "candidates": 8,
    "of": [{"kind": "sum", "weights": [1.0, -0.5], "of": [CRITIC, OR]}, CRITIC],
}  # fmt: skip
QUADRATIC = {"kind": "quadratic", "hidden": [8, 6], "layer_norm": True}
QUADRATICS = {"kind": "sum", "weights": [0.5, 0.5], "of": [QUADRATIC, QUADRATIC]}
ESTIMATOR = {"proposal": "mixture", "particles": 65536, "centres": 32, "smoothing": 0.5}
OBSERVATION = np.array([0.1, -0.2, 0.3, 0.4])
FILES = ("critic.safetensors", "sampler.safetensors", "replay.safetensors")


def refusal(function, *args, **kwargs):
    """The message of the refusal, which must be one line."""
    with pytest.raises(QomposeError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message.isprintable(), message
    return message


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def edit(directory, change, sign=False):
    """Change the manifest as `change(manifest)` does; with `sign`, make sizes and hashes fit the files again."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    if sign:
        for name in manifest["files"]:
            data = (directory / name).read_bytes()
            manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(manifest))


@pytest.fixture
def saved(make_skill, tmp_path):
    """A saved skill's directory; whatever a test does to it, loading must not change a byte."""
    return make_skill().save(tmp_path / "left")


# ------------------------------------------------------------------------------------------------------ round trip


@pytest.mark.parametrize(
    "kinds",
    [{}, {"critic": SUM, "sampler": CANDIDATES}, {"critic": NESTED, "sampler": CANDIDATES}, {"transitions": 0}],
    ids=["leaf", "composed", "nested", "stripped"],
)
def test_a_skill_comes_back_bit_for_bit(make_skill, tmp_path, kinds):
    skill = make_skill(**kinds)
    found = load(skill.save(tmp_path / "s"))
    for name in ("critic", "sampler"):
        mine, theirs = getattr(skill, name), getattr(found, name)
        assert mine.spec == theirs.spec
        assert {k: v.tobytes() for k, v in mine.arrays.items()} == {k: v.tobytes() for k, v in theirs.arrays.items()}
    for name in artifact.FIELDS:
        assert getattr(found, name) == getattr(skill, name), name
    if skill.replay is None:
        assert found.replay is None
    else:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(skill.replay, found.replay, strict=True))
    for mode in artifact.MODES:
        rng, again = np.random.default_rng(1), np.random.default_rng(1)
        assert np.array_equal(skill.act(OBSERVATION, mode, rng), found.act(OBSERVATION, mode, again))


def test_the_deepest_critic_comes_back_and_what_could_not_replaces_nothing(make_skill, tmp_path, monkeypatch):
    deepest = CRITIC
    for _ in range(6):
        deepest = {"kind": "sum", "weights": [1.0], "of": [deepest]}
    target = make_skill(critic=deepest).save(tmp_path / "s")
    assert load(target).critic.spec == deepest
    with monkeypatch.context() as patch:
        patch.setattr(artifact, "check_manifest", lambda manifest: store.parse_json(b"[" * 20))
        with pytest.raises(QomposeError, match="is not JSON"):
            make_skill().save(target, overwrite=True)
    assert load(target).critic.spec == deepest


@pytest.mark.parametrize("replay", [True, False])
def test_skills_of_ddpg_and_naf_come_back_bit_for_bit(make_ddpg, make_naf, tmp_path, replay):
    for index, skill in enumerate((make_ddpg(), make_naf(), make_naf(critic=QUADRATICS))):
        directory = skill.save(tmp_path / str(index), replay=replay)
        found = load(directory)
        assert (directory / "sampler.safetensors").exists() == (skill.algorithm == "ddpg")
        assert (found.replay is None) != replay
        assert (found.temperature, found.estimator, found.algorithm) == (None, None, skill.algorithm)
        for name in ("critic", "sampler"):
            mine, theirs = getattr(skill, name), getattr(found, name)
            assert (mine is None) == (theirs is None) == (name == "sampler" and skill.algorithm == "naf")
            if mine is not None:
                assert mine.spec == theirs.spec
                assert all(np.array_equal(array, theirs.arrays[key]) for key, array in mine.arrays.items())
        assert np.array_equal(skill.act(OBSERVATION), found.act(OBSERVATION))
        assert contents(directory) == contents(found.save(tmp_path / f"{index} again"))


def test_a_sampler_that_naf_has_no_use_for_is_refused(make_naf, make_ddpg, tmp_path):
    directory = make_naf().save(tmp_path / "naf")
    shutil.copy(make_ddpg().save(tmp_path / "ddpg") / "sampler.safetensors", directory)
    assert "sampler.safetensors: is not named in the manifest" in refusal(load, directory)

    def add(manifest):
        manifest["files"]["sampler.safetensors"] = {}

    edit(directory, add, sign=True)
    assert "files: must be an object with exactly critic.safetensors, replay.safetensors" in refusal(load, directory)


def test_saving_twice_gives_equal_bytes(make_skill, tmp_path):
    skill = make_skill()
    assert contents(skill.save(tmp_path / "a")) == contents(load(tmp_path / "a").save(tmp_path / "b"))


def test_a_skill_without_its_data_acts_the_same(saved):
    skill, stripped = load(saved), load(saved, replay=False)
    assert stripped.replay is None
    assert skill.strip().replay is None
    assert np.array_equal(stripped.q(OBSERVATION, [0.5, 0.5]), skill.strip().q(OBSERVATION, [0.5, 0.5]))


def test_data_is_left_out_on_request(make_skill, tmp_path):
    make_skill().save(tmp_path / "s", replay=False)
    files = ["README.md", "critic.safetensors", "manifest.json", "sampler.safetensors"]
    assert sorted(os.listdir(tmp_path / "s")) == files
    assert load(tmp_path / "s").replay is None


def test_thinned_data_is_evenly_spaced_and_the_policy_the_same(make_skill):
    skill = make_skill(transitions=101)
    thin = skill.thin(11)
    np.testing.assert_array_equal(thin.replay.observation, skill.replay.observation[::10])
    np.testing.assert_array_equal(thin.replay.reward, skill.replay.reward[::10])
    assert len(skill.thin(1000).replay.reward) == 101
    observation = np.ones(4)
    np.testing.assert_array_equal(
        *(s.act(observation, rng=np.random.default_rng(0)) for s in (skill, thin)), strict=True
    )
    with pytest.raises(QomposeError, match="transitions is 0"):
        skill.thin(0)
    with pytest.raises(QomposeError, match="carries no replay"):
        dataclasses.replace(skill, replay=None).thin(5)


@pytest.mark.parametrize("weights", [[2 / 3, 1 / 3], [1.0, -0.5], None])
def test_composition_and_every_optional_field_are_kept(make_skill, tmp_path, weights):
    composition = {"expression": "2*left & bottom", "weights": weights, "names": ["left", "bottom"]}
    skill = make_skill(
        composition=composition, control_period=None, horizon=None, observation={"size": 4, "names": None}
    )
    found = load(skill.save(tmp_path / "s"))
    assert found.composition == composition
    assert (found.control_period, found.horizon, found.observation["names"]) == (None, None, None)


def test_a_model_card_may_lie_beside_the_skill_and_is_never_read(saved):
    (saved / "README.md").write_bytes(b"\xff not text")
    load(saved)


# ---------------------------------------------------------------------------------------------------------- saving


def test_an_existing_directory_is_refused_and_kept(make_skill, saved):
    before = contents(saved)
    assert "exists" in refusal(make_skill("right", seed=1).save, saved)
    assert contents(saved) == before


def test_overwriting_replaces_a_skill(make_skill, saved):
    make_skill("right", seed=1).save(saved, overwrite=True)
    assert load(saved).name == "right"
    assert os.listdir(saved.parent) == ["left"]


def test_overwriting_never_removes_what_is_not_a_skill(make_skill, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years")
    assert "'thesis.tex'" in refusal(make_skill().save, tmp_path / "work", overwrite=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("mine")
    assert "is not a skill" in refusal(make_skill().save, tmp_path / "notes", overwrite=True)
    (tmp_path / "file").write_text("mine")
    refusal(make_skill().save, tmp_path / "file", overwrite=True)
    assert (tmp_path / "work" / "thesis.tex").read_text() == "years"
    assert (tmp_path / "notes" / "README.md").read_text() == (tmp_path / "file").read_text() == "mine"


def test_a_skill_interrupted_while_overwritten_is_found_again(make_skill, saved):
    os.rename(saved, saved.with_name(".left.qompose-old"))
    assert "interrupted save" in refusal(load, saved)
    make_skill("right", seed=1).save(saved, overwrite=True)
    assert load(saved).name == "right"


# --------------------------------------------------------------------------------------------------- broken files


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_truncated_file_is_refused_at_every_length(saved, name):
    whole = (saved / name).read_bytes()
    for length in sorted({0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 2}):
        (saved / name).write_bytes(whole[:length])
        assert refusal(load, saved).startswith(f"skill {str(saved)!r}: {name}: ")


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused_by_the_hash(saved, name):
    whole = (saved / name).read_bytes()
    for index in range(0, len(whole), max(1, len(whole) // 20)):
        changed = bytearray(whole)
        changed[index] ^= 4
        (saved / name).write_bytes(changed)
        assert f"{name}: sha256" in refusal(load, saved)


def put(name, index, value):
    """Overwrite one number of a tensor file, in place."""

    def change(directory):
        data = bytearray((directory / name).read_bytes())
        start = 8 + int.from_bytes(data[:8], "little") + 4 * index
        data[start : start + 4] = np.float32(value).tobytes()
        (directory / name).write_bytes(data)

    return change


def rewrite(name, change):
    """Write a tensor file again with changed arrays."""

    def apply(directory):
        arrays = store_read(directory / name)
        change(arrays)
        store.write_arrays(directory / name, arrays)

    return apply


def store_read(path):
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return {
        key: np.frombuffer(data[start:][slice(*value["data_offsets"])], np.float32).reshape(value["shape"]).copy()
        for key, value in header.items()
    }


def raw(name, data):
    return lambda directory: (directory / name).write_bytes(data)


HUGE = json.dumps({"bias_0": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (put("critic.safetensors", 0, np.nan), "critic.safetensors: tensor '.*': holds NaN or infinity"),
        (put("sampler.safetensors", 5, np.inf), "sampler.safetensors: tensor '.*': holds NaN or infinity"),
        (put("replay.safetensors", 3, np.nan), "replay.safetensors: tensor '.*': holds NaN or infinity"),
        (
            rewrite("critic.safetensors", lambda a: a.update(scale=np.float32(-1))),
            "critic: tensor 'scale': a scale must be positive",
        ),
        (
            rewrite("sampler.safetensors", lambda a: a.update(observation_scale=np.zeros(4, np.float32))),
            "sampler: tensor 'observation_scale': a scale must be positive",
        ),
        (
            rewrite("critic.safetensors", lambda a: a.pop("bias_1")),
            "critic.safetensors: size|tensor 'bias_1': is missing",
        ),
        (
            rewrite("critic.safetensors", lambda a: a.update(bias_0=a["bias_0"][:-1])),
            r"critic.safetensors: (size|tensor 'bias_0')",
        ),
        (
            rewrite("critic.safetensors", lambda a: a.update(weight_1=a["weight_1"].T.copy())),
            r"critic.safetensors: tensor 'weight_1': shape must be \[8, 6\], not \[6, 8\]",
        ),
        (
            rewrite("critic.safetensors", lambda a: a.update(backdoor=np.zeros(1, np.float32))),
            "critic.safetensors: tensor 'backdoor': does not belong",
        ),
        (
            rewrite("sampler.safetensors", lambda a: a.update(bias_0=a["bias_0"].astype(np.float64))),
            "sampler.safetensors: tensor 'bias_0': dtype must be F32, not 'F64'",
        ),
        (rewrite("replay.safetensors", lambda a: a["action"].fill(1.5)), "replay: action: must lie in"),
        (rewrite("replay.safetensors", lambda a: a["terminated"].fill(0.5)), "replay: terminated: must be 0 or 1"),
        (rewrite("replay.safetensors", lambda a: a["terminated"].fill(1.0)), "replay: terminated: is 1 somewhere"),
        (
            rewrite("replay.safetensors", lambda a: a.update(reward=a["reward"][:-1])),
            "replay.safetensors: (size|tensor)",
        ),
        (raw("critic.safetensors", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00" * 99), "critic.safetensors: header"),
        (raw("critic.safetensors", b"PK\x03\x04" * 300), "critic.safetensors: header"),
        (raw("critic.safetensors", len(HUGE).to_bytes(8, "little") + HUGE + bytes(999)), "critic.safetensors: tensor"),
        (raw("critic.safetensors", b"\xff" * 1500), "critic.safetensors: header: declares"),
        (raw("critic.safetensors", b""), "critic.safetensors: size"),
    ],
)
def test_hostile_tensors_are_refused_even_with_good_hashes(saved, change, what):
    change(saved)
    before = contents(saved)
    assert "sha256" in (message := refusal(load, saved)) or "size" in message
    edit(saved, lambda manifest: None, sign=True)
    before["manifest.json"] = (saved / "manifest.json").read_bytes()
    with pytest.raises(QomposeError, match=rf"^skill '.*': {what}"):
        load(saved)
    assert contents(saved) == before


def setter(*path, to):
    def change(manifest):
        node = manifest
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (["format"], "other", "format"),
        (["version"], 2, "version: 2 is newer than 1"),
        (["version"], True, "version"),
        (["version"], "1", "version"),
        (["name"], "../../etc/passwd", "name"),
        (["name"], "Left", "name"),
        (["name"], "left\n", "name"),
        (["name"], "", "name"),
        (["name"], "a" * 65, "name"),
        (["name"], ["left"], "name"),
        (["algorithm"], "os.system", "algorithm"),
        (["algorithm"], ["sql"], "algorithm"),
        (["temperature"], 0, "temperature"),
        (["temperature"], -0.1, "temperature"),
        (["temperature"], True, "temperature"),
        (["temperature"], "0.1", "temperature"),
        (["temperature"], 10**400, "temperature"),
        (["discount"], 1.0, "discount"),
        (["discount"], 0.0, "discount"),
        (["discount"], None, "discount"),
        (["observation"], [], "observation"),
        (["observation", "size"], 0, r"observation\.size"),
        (["observation", "size"], 4.0, r"observation\.size"),
        (["observation", "size"], 10_001, r"observation\.size"),
        (["observation", "size"], 2**62, r"observation\.size"),
        (["observation", "names"], ["x"], r"observation\.names"),
        (["observation", "names"], ["x", "x", "y", "z"], r"observation\.names"),
        (["observation", "names"], ["x", "y", "z", "\x1b[31m"], r"observation\.names\[3\]"),
        (["observation", "names"], ["x", "y", "z", ""], r"observation\.names\[3\]"),
        (["observation", "unit"], "m", r"observation\.unit: is unknown"),
        (["action", "low"], [-1.0], r"action\.low"),
        (["action", "low"], [3.0, 0.0], r"action\.high"),
        (["action", "high"], [1e300, 1.0], r"action\.high\[0\]"),
        (["control_period"], 0, "control_period"),
        (["control_period"], [], "control_period"),
        (["horizon"], 0, "horizon"),
        (["horizon"], 300.0, "horizon"),
        (["terminates"], 1, "terminates"),
        (["terminates"], None, "terminates"),
        (["task", "id"], "a\u202eb", r"task\.id"),
        (["task", "id"], "a" * 257, r"task\.id"),
        (["task", "options"], {"a": {"b": {"c": {}}}}, r"task\.options\.a\.b\.c"),
        (["task", "options"], {"a": [[[1]]]}, r"task\.options\.a\[0\]\[0\]"),
        (["task", "options"], {"\n": 1}, r"task\.options"),
        (["task", "options"], {"a": 2**63}, r"task\.options\.a"),
        (["estimator", "proposal"], "policy", r"estimator\.proposal"),
        (["estimator", "particles"], 0, r"estimator\.particles"),
        (["estimator", "particles"], 10**9, r"estimator\.particles"),
        (["estimator"], ESTIMATOR, r"estimator: particles times centres"),
        (["estimator", "centres"], 1, r"estimator\.centres"),
        (["estimator", "smoothing"], 0.0, r"estimator\.smoothing"),
        (["composition"], {}, r"composition\.expression: is missing"),
        (["composition"], {"expression": "a", "weights": [1.0], "names": []}, r"composition\.names"),
        (["composition"], {"expression": "a", "weights": [0.0], "names": ["a"]}, r"composition\.weights\[0\]"),
        (["composition"], {"expression": "a", "weights": [-1e10], "names": ["a"]}, r"composition\.weights\[0\]"),
        (["composition"], {"expression": "a", "weights": [True], "names": ["a"]}, r"composition\.weights\[0\]"),
        (["composition"], {"expression": "a", "weights": [], "names": ["a"]}, r"composition\.weights"),
        (["composition"], {"expression": "a", "weights": [1.0], "names": ["A/b"]}, r"composition\.names\[0\]"),
        (["provenance"], None, "provenance"),
        (["provenance", "a"], {"b": {"c": {"d": {"e": 1}}}}, r"provenance\.a"),
        (["provenance", "a"], "x" * 5000, r"provenance\.a"),
        (["provenance", "a"], ["x"] * 3000, "provenance"),
        (["critic"], None, "critic"),
        (["critic", "kind"], "__import__('os')", r"critic\.kind"),
        (["critic", "kind"], "sampler", r"critic\.kind"),
        (["critic", "module"], "torch.nn", r"critic\.'module'"),
        (["critic", "hidden"], [10**6], r"critic\.hidden"),
        (["critic", "hidden"], [8, 7], r"tensor|critic\.safetensors: size"),
        (["sampler", "kind"], "critic", r"sampler\.kind"),
        (["sampler", "layer_norm"], "yes", r"sampler\.layer_norm"),
        (["transitions"], 0, "transitions"),
        (["transitions"], 6, r"replay\.safetensors: tensor 'observation': shape"),
        (["transitions"], 10**12, "transitions"),
        (["transitions"], None, "files"),
        (["files"], [], "files"),
        (["files", "../evil"], {"bytes": 1, "sha256": "0" * 64}, "files"),
        (["files", "critic.safetensors", "bytes"], 1, r"critic\.safetensors: size"),
        (["files", "critic.safetensors", "bytes"], -1, r"files\.critic\.safetensors\.bytes"),
        (["files", "critic.safetensors", "sha256"], "0" * 64, r"critic\.safetensors: sha256"),
        (["files", "critic.safetensors", "sha256"], "g" * 64, r"files\.critic\.safetensors\.sha256"),
        (["files", "critic.safetensors", "url"], "http://x", r"files\.critic\.safetensors\.url: is unknown"),
        (["hook"], "import os", "hook: is unknown"),
        (["a\nb"], 1, r"'a\\nb': is unknown"),
    ],
)
def test_a_manifest_outside_the_schema_is_refused_by_field(saved, path, value, field):
    edit(saved, setter(*path, to=value))
    before = contents(saved)
    message = refusal(load, saved)
    assert message.startswith(f"skill {str(saved)!r}: ")
    assert re.search(field, message.removeprefix(f"skill {str(saved)!r}: ")), message
    assert contents(saved) == before


def test_every_field_of_the_manifest_is_required(saved):
    whole = json.loads((saved / "manifest.json").read_text())

    def paths(node, prefix=()):
        for key, value in node.items():
            yield (*prefix, key)
            if isinstance(value, dict) and (*prefix, key) not in (("task", "options"), ("provenance",)):
                yield from paths(value, (*prefix, key))

    count = 0
    for path in paths(whole):
        manifest = copy.deepcopy(whole)
        node = manifest
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
        (saved / "manifest.json").write_text(json.dumps(manifest))
        message = refusal(load, saved)
        assert path[-1] in message
        count += 1
    assert count > 30


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (lambda text: text.replace('"name":', '"name": "x", "name":', 1), "'name': appears twice"),
        (lambda text: text.replace('"seed": 0', '"seed": NaN'), "NaN"),
        (lambda text: text.replace('"seed": 0', '"seed": 1e999'), "1e999"),
        (lambda text: text.replace('"seed": 0', '"seed": ' + "[" * 5000 + "]" * 5000), "deeper"),
        (lambda text: text + " " * 2**20, "size"),
        (lambda text: "[" * 500_000, "deeper"),
        (lambda text: "null", "must be an object"),
        (lambda text: "", "not JSON"),
    ],
    ids=["duplicate", "NaN", "overflow", "deep", "long", "deepest", "null", "empty"],
)
def test_a_manifest_that_is_not_strict_json_is_refused(saved, text, what):
    path = saved / "manifest.json"
    path.write_text(text(path.read_text()))
    assert what in refusal(load, saved)


# ------------------------------------------------------------------------------------------------ hostile folders


def test_unknown_files_and_folders_are_refused(saved):
    for name in ("run.py", "skill.pkl", ".hidden", "critic.safetensors.bak"):
        (saved / name).write_text("x")
        assert f"{name!r}: does not belong here" in refusal(load, saved)
        (saved / name).unlink()
    (saved / "deep").mkdir()
    assert "'deep': does not belong here" in refusal(load, saved)
    (saved / "deep").rmdir()
    (saved / "README.md").unlink()
    (saved / "README.md").mkdir()
    assert "README.md: is a link or no regular file" in refusal(load, saved)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_links_are_refused_even_to_good_files(saved, tmp_path, name):
    (saved / name).rename(tmp_path / "elsewhere")
    (saved / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name}: is a link" in refusal(load, saved)
    (saved / name).unlink()
    os.mkfifo(saved / name)
    assert f"{name}: is a link or no regular file" in refusal(load, saved)


def test_missing_and_surplus_files_are_named(saved, make_skill):
    (saved / "replay.safetensors").rename(saved.parent / "replay")
    assert "replay.safetensors: is missing" in refusal(load, saved)
    bare = make_skill(transitions=0).save(saved.parent / "bare")
    (saved.parent / "replay").rename(bare / "replay.safetensors")
    assert "replay.safetensors: is not named in the manifest" in refusal(load, bare)
    (bare / "manifest.json").unlink()
    (bare / "main.py").write_text("")  # somebody's folder: nothing in it is in the wrong place
    assert "manifest.json: is missing; this is not a skill" in refusal(load, bare)


@pytest.mark.parametrize("name", ["absent", "a\nb", "nul\0byte", ""])
def test_a_directory_that_cannot_be_opened_is_refused(tmp_path, name):
    refusal(load, f"{tmp_path}/x/{name}")


def test_the_acting_path_imports_no_jax():
    code = "import sys, qompose.skill.artifact; assert not {'jax', 'equinox', 'optax', 'mujoco'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------------------------------------------- acting


@pytest.mark.parametrize("kinds", [{}, {"critic": SUM, "sampler": CANDIDATES}], ids=["leaf", "composed"])
@pytest.mark.parametrize("mode", artifact.MODES)
def test_actions_have_the_shape_of_the_observations_and_lie_in_the_box(make_skill, kinds, mode):
    skill = make_skill(**kinds)
    rng = np.random.default_rng(0)
    assert skill.act(OBSERVATION, mode, rng).shape == (2,)
    several = skill.act(np.random.default_rng(1).standard_normal((300, 4)), mode, rng)
    assert several.shape == (300, 2)
    assert several.dtype == np.float32
    assert np.all(np.abs(several) <= 1.0)
    assert len(np.unique(several, axis=0)) > 290


def test_ddpg_acts_by_its_actor(make_ddpg):
    skill, observations = make_ddpg(), np.random.default_rng(1).standard_normal((300, 4))
    action = skill.act(observations)
    assert action.shape == (300, 2) and action.dtype == np.float32 and np.all(np.abs(action) < 1.0)
    assert np.array_equal(action, skill.act(observations, rng=np.random.default_rng(5)))
    assert np.array_equal(action, skill.predict(observations, deterministic=True)[0])
    best = skill.act(observations, "best", np.random.default_rng(0))
    assert np.all(skill.q(observations, best) >= skill.q(observations, action) - 1e-6)
    assert np.mean(skill.q(observations, best) > skill.q(observations, action)) > 0.9  # of an actor that knows nothing


@pytest.mark.parametrize("critic", [QUADRATIC, QUADRATICS], ids=["leaf", "sum"])
def test_naf_acts_by_the_maximum_of_its_critic(make_naf, critic):
    skill, observations = make_naf(critic=critic), np.random.default_rng(1).standard_normal((300, 4))
    action = skill.act(observations)
    assert action.shape == (300, 2) and action.dtype == np.float32 and np.all(np.abs(action) <= 1.0)
    for other in (skill.act(observations, "best"), skill.predict(observations, deterministic=True)[0]):
        assert np.array_equal(action, other)
    highest, rng = skill.q(observations, action), np.random.default_rng(2)
    for _ in range(100):
        assert np.all(skill.q(observations, rng.uniform(-1, 1, (300, 2))) <= highest + 1e-5)


def test_what_needs_a_temperature_is_refused_without_one(make_ddpg, make_naf):
    for skill, name in ((make_ddpg(), "ddpg"), (make_naf(), "naf")):
        learned = f"skill 'left' learned with {name}: no temperature, so "
        assert refusal(skill.act, OBSERVATION, "resample") == f"{learned}nothing to resample by; use mode sample"
        assert refusal(skill.value, OBSERVATION) == f"{learned}no soft value"


def test_blocks_of_observations_keep_their_order(make_skill, monkeypatch):
    monkeypatch.setattr(artifact, "ROWS", 7 * 256)
    skill, seen = make_skill(), []
    monkeypatch.setattr(Skill, "_best", lambda self, rows, rng: seen.append(len(rows)) or rows[:, :2].copy())
    observations = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    assert np.array_equal(skill.act(observations, "best"), observations[:, :2])
    assert seen == [7] * 7 + [1]


def test_equal_generators_give_equal_actions_and_fresh_ones_do_not(make_skill):
    skill = make_skill()
    for mode in artifact.MODES:
        one, two = (skill.act(OBSERVATION, mode, np.random.default_rng(3)) for _ in range(2))
        assert np.array_equal(one, two)
    assert not np.array_equal(skill.act(OBSERVATION), skill.act(OBSERVATION))


def test_predict_is_deterministic_on_request(make_skill):
    skill = make_skill()
    action, state = skill.predict(OBSERVATION, deterministic=True)
    assert state is None
    assert np.array_equal(action, skill.predict(OBSERVATION, state=None, episode_start=None, deterministic=True)[0])
    assert not np.array_equal(skill.predict(OBSERVATION)[0], skill.predict(OBSERVATION)[0])


@pytest.mark.parametrize(
    "observation",
    [
        np.zeros(3),
        np.zeros((2, 5)),
        np.zeros((1, 1, 4)),
        np.zeros((0, 4)),
        0.0,
        [1, 2, 3, np.nan],
        [1, 2, 3, np.inf],
        [1, 2, 3, 1e39],
        ["a", "b", "c", "d"],
        [[1, 2], [3]],
        None,
        {"x": 1},
    ],
    ids=str,
)
def test_observations_of_wrong_shape_or_content_are_refused(make_skill, observation):
    skill = make_skill()
    for attempt in (skill.act, skill.value, lambda o: skill.q(o, [0.0, 0.0])):
        assert refusal(attempt, observation).startswith("skill 'left': the observation")


def test_unknown_modes_and_generators_are_refused(make_skill):
    assert "choose one of sample, resample, best" in refusal(make_skill().act, OBSERVATION, "greedy")
    assert "2 actions" in refusal(make_skill().q, OBSERVATION, np.zeros((2, 2)))


def test_a_critic_that_overflows_is_refused_not_followed(make_skill):
    skill = make_skill()
    arrays = {
        **skill.critic.arrays,
        "weight_out": np.full((6, 1), 3e38, np.float32),
        "bias_1": np.full(6, 9, np.float32),
    }
    broken = dataclasses.replace(skill, critic=skill.critic._replace(arrays=arrays))
    for mode in ("resample", "best"):
        assert "critic returned NaN or infinity" in refusal(broken.act, OBSERVATION, mode)
    assert "critic returned NaN or infinity" in refusal(broken.value, OBSERVATION)
    assert "critic returned NaN or infinity" in refusal(broken.q, OBSERVATION, [0.0, 0.0])


def test_the_value_is_that_of_a_fine_quadrature(make_skill):
    skill = make_skill(
        estimator={"proposal": "mixture", "particles": 4096, "centres": 64, "smoothing": 0.4}, temperature=0.5
    )
    uniform = make_skill(
        estimator={"proposal": "uniform", "particles": 8192, "centres": 64, "smoothing": 1.0}, temperature=0.5
    )
    axis = (np.arange(200) + 0.5) / 100 - 1
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    q = skill.q(np.tile(OBSERVATION, (len(grid), 1)), grid).astype(np.float64)
    exact = 0.5 * np.log(np.mean(np.exp(q / 0.5)))
    for estimate in (skill, uniform):
        assert abs(estimate.value(OBSERVATION, np.random.default_rng(0)) - exact) < 0.02
    assert skill.value(np.tile(OBSERVATION, (9, 1))).shape == (9,)
    assert exact < q.max()


def test_actions_are_rescaled_to_the_real_limits(make_skill):
    skill = make_skill()
    np.testing.assert_array_equal(skill.to_environment([[-1, -1], [1, 1]]), np.float32([[-3, 0], [3, 0.1]]))
    np.testing.assert_allclose(skill.to_environment([0, 0]), [0.0, 0.05])
    for wrong in ([np.nan, 0], [1.01, 0], [0], 0.5, [0, -np.inf]):
        assert "must be 2 numbers in [-1, 1]" in refusal(skill.to_environment, wrong)


# ------------------------------------------------------------------------------------------------- making and mixing


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Left Hand"}, "name"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": None}, "temperature"),
        ({"estimator": None}, "estimator"),
        ({"algorithm": "ddpg"}, "temperature"),
        ({"algorithm": "naf", "temperature": None}, "estimator"),
        ({"algorithm": "ddpg", "temperature": None, "estimator": None}, "sampler.kind"),
        ({"algorithm": "naf", "temperature": None, "estimator": None}, "critic.kind"),
        ({"algorithm": "sac"}, "algorithm"),
        ({"sampler": None}, "sampler"),
        ({"discount": 1.0}, "discount"),
        ({"critic": {"kind": "sampler", "hidden": [2], "layer_norm": True}}, "critic.kind"),
    ],
)
def test_a_skill_that_could_not_be_loaded_cannot_be_made(make_skill, changes, field):
    assert refusal(make_skill, **{"name": "left", **changes}).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"reward": np.zeros(5)}, "replay: reward: must be float32"),
        ({"reward": np.zeros((5, 1), np.float32)}, "replay: reward: must be float32"),
        ({"reward": np.zeros(0, np.float32)}, "replay: reward: must be 1 to"),
        ({"reward": np.full(5, np.nan, np.float32)}, "replay: reward: holds NaN"),
        ({"observation": np.zeros((5, 3), np.float32)}, "replay: observation: must be float32"),
        ({"action": np.full((5, 2), 1.01, np.float32)}, "replay: action: must lie in"),
    ],
)
def test_data_that_could_not_be_loaded_cannot_be_kept(make_skill, change, field):
    good = make_skill().replay
    assert refusal(make_skill, replay=good._replace(**change)).startswith(field)


def test_a_terminating_skill_may_hold_terminal_transitions(make_skill, tmp_path):
    replay = make_skill().replay._replace(terminated=np.float32([0, 1, 0, 0, 1]))
    skill = make_skill(terminates=True, replay=Transition(*replay))
    assert load(skill.save(tmp_path / "s")).replay.terminated.sum() == 2


def test_a_skill_is_a_leaf_and_equal_to_itself_alone(make_skill):
    left, twin = make_skill(), make_skill()
    assert left == left
    assert left != twin
    assert {left: 1, twin: 2}[twin] == 2
    assert repr(2 * left & make_skill("bottom")) == "2*left & bottom"


def test_skills_of_different_temperature_and_task_may_be_composed(make_skill):
    check_compatible([make_skill()])
    check_compatible([make_skill(), make_skill(temperature=0.2, task={"id": "x", "options": {}}, horizon=None)])
    check_compatible([make_skill(), make_skill(observation={"size": 4, "names": None})])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"observation": {"size": 4, "names": ["x", "y", "dy", "dx"]}}, "observation.names: 'dx' and 'dy' differ"),
        (
            {"action": {"size": 2, "low": [-3.0, 0.0], "high": [3.0, 0.2]}},
            "action.high: [3.0, 0.1] and [3.0, 0.2] differ",
        ),
        ({"discount": 0.98}, "discount: 0.99 and 0.98 differ"),
        ({"control_period": 0.1}, "control_period: 0.05 and 0.1 differ"),
        ({"control_period": None}, "control_period: 0.05 and None differ"),
        ({"terminates": True}, "terminates: False and True differ"),
    ],
)
def test_skills_that_cannot_be_composed_are_refused_with_the_reason(make_skill, change, reason):
    message = refusal(check_compatible, [make_skill(), make_skill(), make_skill("bottom", **change)])
    assert message.startswith(f"skills 'left' and 'bottom': {reason}; ")


def test_skills_of_different_algorithms_are_refused_in_one_line(make_skill, make_ddpg, make_naf):
    for first, second in ((make_skill(), make_ddpg("other")), (make_ddpg(), make_naf("other"))):
        words = f"'{first.algorithm}' and '{second.algorithm}' differ; only values of one algorithm can be added"
        assert refusal(check_compatible, [first, second]) == f"skills 'left' and 'other': algorithm: {words}"


def test_skills_of_different_size_are_refused(make_skill):
    other = make_skill(transitions=0)
    spec = {"kind": "critic", "hidden": [2], "layer_norm": False}

    def ones(kind, observation_size, action_size):
        expected = expected_arrays({**spec, "kind": kind}, observation_size, action_size)
        return Network({**spec, "kind": kind}, {k: np.ones(s, d) for k, (d, s) in expected.items()})

    for sizes, what in (((3, 2), "observation.size: 4 and 3"), ((4, 1), "action.size: 2 and 1")):
        changed = dataclasses.replace(
            other,
            critic=ones("critic", *sizes),
            sampler=ones("sampler", *sizes),
            observation={"size": sizes[0], "names": None},
            action={"size": sizes[1], "low": [-1.0] * sizes[1], "high": [1.0] * sizes[1]},
        )
        assert what in refusal(check_compatible, [other, changed])


def test_nothing_and_strangers_cannot_be_composed(make_skill):
    assert "nothing to compose" in refusal(check_compatible, [])
