import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose import store
from qompose.run import (
    Run,
    checksum_of,
    command_line,
    describe_system,
    name_leaves,
    open_run,
    read_metrics,
    restore_leaves,
)  # fmt: skip
from qompose.types import QomposeError

CONFIG = {"env": "PushLeft", "agent": {"temperature": 0.1, "hidden": (16, 16)}}
FACTS = {"recent": [{"return": -1.5, "length": 3}]}


def arrays_at(step):
    rng = np.random.default_rng(step)
    return {
        "agent/weight": rng.standard_normal((3, 4)).astype(np.float32),
        "env/state": rng.standard_normal(7),
        "count": np.array(step, np.int32),
        "resetting": np.array([True, False]),
        "pending": np.zeros((0, 5), np.float32),
    }


def same(first, second):
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and first[name].tobytes() == second[name].tobytes()
        for name in first
    )


def tree(directory):
    """Every file and link below a directory with its contents."""
    return {
        str(path.relative_to(directory)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run", CONFIG, events=False)


def test_a_run_says_what_was_asked_for_and_where_it_ran(run):
    assert store.read_json(run.directory / "config.json") == json.loads(json.dumps(CONFIG))
    assert (run.directory / "command.txt").read_text() == command_line() + "\n"
    system = store.read_json(run.directory / "system.json")
    assert system["versions"]["numpy"] == np.__version__ and system["device"] == "cpu" and system["cores"] >= 1


def test_the_system_is_described_without_folders():
    text = json.dumps(describe_system())
    assert str(Path.cwd()) not in text and str(Path.home()) + "/" not in text and sys.prefix not in text


def test_the_command_is_one_printable_line_without_folders(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/folder/qompose", "train", "--name", "a\nb \udcff", "x" * 9000])
    line = command_line()
    assert line.startswith("qompose train --name 'a�b �' xxx")
    assert line.isprintable() and len(line) == 4096
    monkeypatch.setattr(sys, "argv", ["/some/folder/qompose/__main__.py", "list"])
    assert command_line() == "qompose list"


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_that_holds_something_is_refused_and_left_alone(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(QomposeError, match="it holds no run; give another directory"):
        Run(tmp_path, CONFIG, resume=resume)
    with pytest.raises(QomposeError, match="exists already"):
        Run(tmp_path / "thesis.tex", CONFIG, resume=resume)
    assert tree(tmp_path) == before


def test_a_run_is_not_started_twice_without_resume(run):
    before = tree(run.directory)
    with pytest.raises(QomposeError, match="give --resume to continue it"):
        Run(run.directory, CONFIG)
    assert tree(run.directory) == before


def test_an_empty_or_missing_directory_starts_a_run_even_with_resume(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "deep/inside"):
        assert Run(tmp_path / name, CONFIG, resume=True).load() is None
        assert (tmp_path / name / "config.json").exists()


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "left", [[".system.json.new"], ["command.txt"], ["command.txt", "system.json", ".config.json.new"]]
)
def test_a_run_killed_while_it_starts_is_started_again(tmp_path, left, resume):
    for name in left:
        (tmp_path / name).write_text("{")
    run = Run(tmp_path, CONFIG, resume=resume)
    assert run.load() is None and run.moved() == []
    assert store.read_json(tmp_path / "config.json") == json.loads(json.dumps(CONFIG))
    with pytest.raises(QomposeError, match="give --resume"):
        Run(tmp_path, CONFIG)


def test_a_run_says_what_is_not_as_it_was_where_it_began(run):
    assert run.moved() == []
    system = store.read_json(run.directory / "system.json")
    changed = {**system, "threads": 999, "commit": "another", "versions": {**system["versions"], "numpy": "1.0"}}
    store.write_json(run.directory / "system.json", changed)
    assert run.moved() == [f"threads 999, now {system['threads']}", f"numpy '1.0', now {np.__version__!r}"]
    (run.directory / "system.json").unlink()
    assert run.moved() == ["the first system is not known"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"env": "PushBottom"}, "env='PushLeft', not 'PushBottom'"),
        ({"agent": {"temperature": 0.2, "hidden": (16, 16)}}, "agent.temperature=0.1, not 0.2"),
        ({"agent": {"temperature": 0.1, "hidden": (16,)}}, r"agent.hidden=\[16, 16\], not \[16\]"),
        ({"seed": 1}, "seed=None, not 1"),
    ],
)
def test_resuming_with_another_configuration_is_refused_naming_the_field(run, change, field):
    before = tree(run.directory)
    with pytest.raises(QomposeError, match=field):
        Run(run.directory, {**CONFIG, **change}, resume=True)
    assert tree(run.directory) == before
    Run(run.directory, json.loads(json.dumps(CONFIG)), resume=True)


def test_a_damaged_configuration_is_refused_in_one_line(run):
    (run.directory / "config.json").write_text("{")
    with pytest.raises(QomposeError, match=r"config\.json: is not JSON") as caught:
        Run(run.directory, CONFIG, resume=True)
    assert "\n" not in str(caught.value)


def test_checkpoints_round_trip_bit_for_bit_and_last_points_at_the_newest(run):
    for step in (100, 200):
        run.save(step, arrays_at(step), FACTS)
        assert os.readlink(run.directory / "last") == f"checkpoints/{step:09d}"
        assert (run.directory / "last" / "state.safetensors").exists()
        found = Run(run.directory, CONFIG, resume=True).load()
        assert found is not None and found[0] == step and found[2] == FACTS
        assert same(found[1], arrays_at(step))


def test_numbers_that_are_not_finite_survive_a_checkpoint(run):
    arrays = {"x": np.float32([np.nan, np.inf, -np.inf, -0.0, 1e-45])}
    run.save(1, arrays, {})
    assert same(run.load()[1], arrays)


def test_the_latest_two_checkpoints_are_kept(run):
    for step in (100, 200, 300, 400):
        run.save(step, arrays_at(step), FACTS)
    assert sorted(path.name for path in (run.directory / "checkpoints").iterdir()) == ["000000300", "000000400"]


def test_files_of_others_among_the_checkpoints_are_left_alone(run):
    run.save(100, arrays_at(100), FACTS)
    for name in ("7", "best", "000000050.bak"):
        (run.directory / "checkpoints" / name).mkdir()
    for step in (200, 300):
        run.save(step, arrays_at(step), FACTS)
    assert run.load()[0] == 300
    names = sorted(path.name for path in (run.directory / "checkpoints").iterdir())
    assert names == ["000000050.bak", "000000200", "000000300", "7", "best"]


def truncate(name, keep):
    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(keep * len(data))])

    return damage


def flip(name, at):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[int(at * len(data))] ^= 0x10
        (folder / name).write_bytes(data)

    return damage


def edit(**fields):
    def damage(folder):
        manifest = json.loads((folder / "state.json").read_text())
        write_words(folder, {**manifest, **fields})

    return damage


def write_words(folder, manifest):
    """With the checksum that belongs to them, so that what else is checked comes to its turn."""
    del manifest["checksum"]
    (folder / "state.json").write_text(json.dumps({**manifest, "checksum": checksum_of(manifest)}))


DAMAGES = {
    **{f"numbers cut at {keep}": truncate("state.safetensors", keep) for keep in (0, 0.01, 0.3, 0.7, 0.999)},
    **{f"words cut at {keep}": truncate("state.json", keep) for keep in (0, 0.2, 0.6, 0.97)},
    **{f"a bit of the numbers flipped at {at}": flip("state.safetensors", at) for at in (0, 0.1, 0.9)},
    "numbers lost": lambda folder: (folder / "state.safetensors").unlink(),
    "words lost": lambda folder: (folder / "state.json").unlink(),
    "all lost": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "words are a list": lambda folder: (folder / "state.json").write_text("[]"),
    "arrays are a list": edit(arrays=[]),
    "arrays of no known type": edit(arrays={"x": ["object", [1]]}),
    "facts are a number": edit(facts=3),
    "of another step": edit(step=300),
    "a bit of the words flipped": flip("state.json", 0.1),
    "a fact changed": lambda folder: (folder / "state.json").write_text(
        (folder / "state.json").read_text().replace("-1.5", "-1.7")
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(run, damage):
    run.save(100, arrays_at(100), FACTS)
    run.save(200, arrays_at(200), FACTS)
    damage(run.directory / "checkpoints" / "000000200")
    step, arrays, facts = Run(run.directory, CONFIG, resume=True).load()
    assert step == 100 and facts == FACTS and same(arrays, arrays_at(100))
    run.save(200, arrays_at(200), FACTS)  # the run goes on and writes it again
    assert run.load()[0] == 200


def test_if_no_checkpoint_can_be_read_nothing_is_started_over_them(run):
    run.save(100, arrays_at(100), FACTS)
    truncate("state.safetensors", 0.5)(run.directory / "checkpoints" / "000000100")
    run.log(50, {"x": 1.0})
    before = tree(run.directory)
    with pytest.raises(QomposeError, match="no checkpoint can be read; start a new run in another directory"):
        run.load()
    assert tree(run.directory) == before


class Crash(BaseException):
    pass


def crash_at(monkeypatch, call):
    """Let the given system call that changes the disk fail, and every one after it."""
    count = 0

    def dying(function):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count >= call:
                raise Crash
            return function(*args, **kwargs)

        return wrapped

    for name in ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir", "symlink"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


def test_a_crash_anywhere_in_a_save_leaves_a_whole_checkpoint(tmp_path):
    call, crashed = 0, True
    while crashed:
        call += 1
        run = Run(tmp_path / str(call), CONFIG, events=False)
        for step in (100, 200):
            run.save(step, arrays_at(step), FACTS)
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, call)
            try:
                run.save(300, arrays_at(300), FACTS)
                crashed = False
            except Crash:
                pass
        resumed = Run(run.directory, CONFIG, resume=True)
        step, arrays, _ = resumed.load()
        assert step in (200, 300) and same(arrays, arrays_at(step))
        resumed.save(400, arrays_at(400), FACTS)
        assert resumed.load()[0] == 400 and os.readlink(run.directory / "last") == "checkpoints/000000400"
    assert call > 8  # the save does take several such calls


@pytest.mark.parametrize("dtype", ["<f,4", "(,f4", "f4" * 20, "O", None])
def test_a_checkpoint_with_a_damaged_dtype_gives_way_to_the_one_before_it(run, dtype):
    for step in (100, 200):
        run.save(step, arrays_at(step), FACTS)
    path = run.directory / "checkpoints" / "000000200" / "state.json"
    manifest = json.loads(path.read_text())
    for entry in manifest["arrays"].values():
        entry[0] = dtype
    write_words(path.parent, manifest)
    told = []
    assert run.load(told.append)[0] == 100
    assert told == [f"{run.directory}: checkpoint 200 cannot be read"]


def test_a_run_that_went_back_keeps_what_it_writes_and_not_what_cannot_be_read(run):
    for step in (100, 200):
        run.save(step, arrays_at(step), FACTS)
    folder = run.directory / "checkpoints"
    shutil.copytree(folder / "000000200", folder / "000000300")  # killed before it removed the oldest
    for step in (200, 300):
        flip("state.safetensors", 0.5)(folder / f"{step:09d}")
    (folder / ".000000400.qompose-new").mkdir()  # killed while it wrote
    assert run.load()[0] == 100
    run.save(150, arrays_at(150), FACTS)
    assert sorted(os.listdir(folder)) == ["000000100", "000000150"] and run.load()[0] == 150


def test_a_second_process_is_refused_before_it_writes_anything(tmp_path):
    with open_run(tmp_path / "run", CONFIG):
        before = tree(tmp_path)
        for config, resume in ((CONFIG, True), ({**CONFIG, "env": "PushRight"}, False)):
            with (
                pytest.raises(QomposeError, match=r"another process is at work|exists already"),
                open_run(tmp_path / "run", config, resume=resume),
            ):
                pass
        assert tree(tmp_path) == before
    (tmp_path / "begun").mkdir()
    with store.hold(tmp_path / "begun"):  # the other has not written its configuration yet
        with pytest.raises(QomposeError, match="another process is at work"), open_run(tmp_path / "begun", CONFIG):
            pass
        assert os.listdir(tmp_path / "begun") == [store.LOCK]
    with open_run(tmp_path / "begun", CONFIG):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(QomposeError, match="holds no run"), open_run(tmp_path / "other", CONFIG):
        pass
    assert os.listdir(tmp_path / "other") == ["thesis.tex"]


def test_figures_after_the_checkpoint_are_dropped_on_resuming(run):
    for step in (50, 100, 150):
        run.log(step, {"x": float(step)})
    run.save(100, arrays_at(100), FACTS)
    with open(run.directory / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 200, "x"')  # cut short by a crash
    again = Run(run.directory, CONFIG, resume=True)
    again.forget_after(again.load()[0])
    run.log(150, {"x": 7.0})
    assert read_metrics(run.directory) == [{"step": 50, "x": 50.0}, {"step": 100, "x": 100.0}, {"step": 150, "x": 7.0}]


def test_figures_are_on_the_disk_before_the_checkpoint_that_follows_them(run, monkeypatch):
    order, sync, publish = [], store.sync, store.publish
    monkeypatch.setattr(store, "sync", lambda path: order.append(path.name) or sync(path))
    monkeypatch.setattr(store, "publish", lambda folder, *rest, **more: order.append("checkpoint") or publish(
        folder, *rest, **more
    ))  # fmt: skip
    run.log(100, {"x": 1.0})
    run.save(100, arrays_at(100), FACTS)
    assert order[:3] == ["metrics.jsonl", run.directory.name, "checkpoint"]
    order.clear()
    run.forget_after(50)
    assert order == ["metrics.jsonl.new", run.directory.name]


def test_a_run_that_starts_over_forgets_its_figures(run):
    run.log(50, {"x": 1.0})
    assert run.load() is None
    run.forget_after(0)
    run.log(50, {"x": 2.0})
    assert read_metrics(run.directory) == [{"step": 50, "x": 2.0}]


def test_figures_that_are_not_finite_are_written_as_null(run):
    run.log(3, {"nan": np.nan, "inf": -np.inf, "real": np.float32(0.5), "count": 4, "array": jnp.float32(2.0)})
    text = (run.directory / "metrics.jsonl").read_text()
    expected = {"step": 3, "nan": None, "inf": None, "real": 0.5, "count": 4, "array": 2.0}
    assert json.loads(text) == expected and "NaN" not in text and '"count": 4,' in text


def test_lines_that_are_no_figures_are_left_out(tmp_path):
    lines = [
        b'{"step": 1}',
        b"[1]",
        b'{"x": 1}',
        b'{"step": "1"}',
        b"\xff",
        b"",
        b'{"step": 2, "x": 1.5}',
        b'{"step": 3',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2, "x": 1.5}]
    assert read_metrics(tmp_path / "nothing") == []


def test_figures_go_to_tensorboard_only_if_wanted(tmp_path):
    for events in (False, True):
        run = Run(tmp_path / str(events), CONFIG, events=events)
        run.log(1, {"x": 1.0})
        run.close()
        assert len(list(run.directory.glob("events.out.tfevents.*"))) == int(events)


class Pair(eqx.Module):
    weight: jax.Array
    parts: list


def make_pair(scale=1.0):
    return Pair(scale * jnp.arange(3.0), [{"count": jnp.int32(4)}, jnp.array([True, False])])


def test_leaves_round_trip_bit_for_bit():
    pair = eqx.tree_at(lambda p: p.weight, make_pair(), jnp.array([jnp.nan, -0.0, 1e-38], jnp.float32))
    named = name_leaves(pair)
    assert set(named) == {"weight", "parts/0/count", "parts/1"}
    restored = restore_leaves(make_pair(), named)
    assert same(name_leaves(restored), named)
    assert restored.weight is not pair.weight and jax.tree.structure(restored) == jax.tree.structure(pair)


@pytest.mark.parametrize(
    "change", [{"parts/0/count": None}, {"weight": np.zeros(4, np.float32)}, {"weight": np.zeros(3, np.float64)}]
)
def test_leaves_of_another_configuration_are_refused_by_name(change):
    named = {**name_leaves(make_pair()), **change}
    named = {name: array for name, array in named.items() if array is not None}
    with pytest.raises(QomposeError, match=f"{next(iter(change))} is missing or of another shape"):
        restore_leaves(make_pair(), named)


def test_restored_leaves_may_be_donated():
    named = name_leaves(make_pair())
    for array in named.values():
        array.flags.writeable = False
    kept = hashlib.sha256(named["weight"].tobytes()).hexdigest()
    restored = restore_leaves(make_pair(), named)
    jax.block_until_ready(jax.jit(lambda x: x * 2.0, donate_argnums=0)(restored.weight))
    assert hashlib.sha256(named["weight"].tobytes()).hexdigest() == kept


def test_a_file_system_without_links_is_no_hindrance(run, monkeypatch):
    monkeypatch.setattr(Path, "symlink_to", lambda *_, **__: (_ for _ in ()).throw(OSError(95, "not supported")))
    run.save(100, arrays_at(100), FACTS)
    assert run.load()[0] == 100 and not os.path.lexists(run.directory / "last.new")


def test_metrics_that_cannot_be_written_are_one_line(run):
    (run.directory / "metrics.jsonl").mkdir()
    with pytest.raises(QomposeError, match=r"metrics cannot be written \(Is a directory\); make room and"):
        run.log(50, {"x": 1.0})
