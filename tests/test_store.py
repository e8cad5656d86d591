import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from qompose import store
from qompose.types import QomposeError

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scale": np.float32(2.5),
    "count": np.array([1, -2], dtype=np.int64),
    "flag": np.array([True, False, True]),
    "key": np.array([1, 2**32 - 1], dtype=np.uint32),
    "empty": np.zeros((0, 3), dtype=np.float32),
}
EXPECTED = {name: (np.asarray(array).dtype, np.asarray(array).shape) for name, array in ARRAYS.items()}
SMALL = {"a": ("float32", (2,)), "b": ("float32", ())}


def refusal(function, *args, **kwargs):
    """The message of the refusal, which must be one line."""
    with pytest.raises(QomposeError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message
    assert message.isprintable(), message
    return message


# ---------------------------------------------------------------------------------------------------------- arrays


def test_arrays_come_back_bit_for_bit(tmp_path):
    arrays = {**ARRAYS, "odd": np.array([-0.0, 1e-45, 3.4e38], dtype=np.float32)}
    store.write_arrays(tmp_path / "x", arrays)
    found = store.read_arrays(tmp_path / "x", {**EXPECTED, "odd": ("float32", (3,))})
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == np.asarray(array).dtype
        assert found[name].shape == np.asarray(array).shape
        assert found[name].tobytes() == np.asarray(array).tobytes()
        assert not found[name].flags.writeable


def test_equal_arrays_give_equal_bytes_in_any_order(tmp_path):
    store.write_arrays(tmp_path / "x", ARRAYS)
    store.write_arrays(tmp_path / "y", dict(reversed(ARRAYS.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_strided_and_big_endian_arrays_are_stored_by_value(tmp_path):
    arrays = {"t": np.arange(6.0, dtype=np.float32).reshape(2, 3).T, "e": np.arange(3, dtype=">f4")}
    store.write_arrays(tmp_path / "x", arrays)
    found = store.read_arrays(tmp_path / "x", {"t": ("float32", (3, 2)), "e": ("float32", (3,))})
    assert np.array_equal(found["t"], arrays["t"])
    assert np.array_equal(found["e"], [0, 1, 2])


def test_the_safetensors_library_reads_what_is_written(tmp_path):
    store.write_arrays(tmp_path / "x", ARRAYS)
    found = safetensors.numpy.load_file(tmp_path / "x")
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_what_the_safetensors_library_writes_is_read(tmp_path):
    safetensors.numpy.save_file({name: np.asarray(array) for name, array in ARRAYS.items()}, tmp_path / "x")
    found = store.read_arrays(tmp_path / "x", EXPECTED)
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_a_header_without_padding_is_read(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, separators=(",", ":")).encode()
    assert (8 + len(header)) % 4
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + np.float32(1.5).tobytes())
    assert store.read_arrays(tmp_path / "x", {"a": ("float32", (1,))})["a"] == np.float32(1.5)


def test_an_object_array_is_never_written(tmp_path):
    assert "dtype object" in refusal(store.write_arrays, tmp_path / "x", {"a": np.array([None])})
    assert not (tmp_path / "x").exists()


def test_a_file_cut_at_any_byte_is_refused(tmp_path):
    store.write_arrays(tmp_path / "x", {"a": np.ones(2, np.float32), "b": np.float32(1)})
    whole = (tmp_path / "x").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        assert refusal(store.read_arrays, tmp_path / "x", SMALL).startswith("x: ")
    (tmp_path / "x").write_bytes(whole + b"\0")
    assert "size" in refusal(store.read_arrays, tmp_path / "x", SMALL)


def test_a_flipped_byte_anywhere_breaks_the_hash(tmp_path):
    store.write_arrays(tmp_path / "x", {"a": np.ones(2, np.float32), "b": np.float32(1)})
    digest, whole = store.sha256_of(tmp_path / "x"), (tmp_path / "x").read_bytes()
    store.read_arrays(tmp_path / "x", SMALL, sha256=digest)
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 1
        (tmp_path / "x").write_bytes(changed)
        assert "sha256" in refusal(store.read_arrays, tmp_path / "x", SMALL, sha256=digest)


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


GOOD_B = entry(shape=(), offsets=(8, 12))


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({"a": entry()}, "tensor 'b': is missing"),
        ({"a": entry(), "b": GOOD_B, "c": entry()}, "tensor 'c': does not belong"),
        ({"a": entry(), "b": GOOD_B, "__metadata__": {}}, "tensor '__metadata__': does not belong"),
        ({"a": entry(), "b": GOOD_B, "x\ny": 1}, r"tensor 'x\\ny': does not belong"),
        ({"a": entry("F64"), "b": GOOD_B}, "tensor 'a': dtype must be F32, not 'F64'"),
        ({"a": entry(["F32"]), "b": GOOD_B}, "tensor 'a': dtype"),
        ({"a": entry(shape=(1,)), "b": GOOD_B}, r"tensor 'a': shape must be \[2\], not \[1\]"),
        ({"a": entry(shape=(2.0,)), "b": GOOD_B}, "tensor 'a': shape"),
        ({"a": entry(shape=(-2,)), "b": GOOD_B}, "tensor 'a': shape"),
        ({"a": entry(shape=(2**62, 2**62)), "b": GOOD_B}, "tensor 'a': shape"),
        ({"a": entry(offsets=(0, 4)), "b": GOOD_B}, "tensor 'a': data_offsets .* do not fit"),
        ({"a": entry(offsets=(0, 8, 8)), "b": GOOD_B}, "tensor 'a': data_offsets"),
        ({"a": entry(offsets=(-4, 4)), "b": GOOD_B}, "tensor 'a': data_offsets"),
        ({"a": entry(offsets=(True, 9)), "b": GOOD_B}, "tensor 'a': data_offsets"),
        ({"a": entry(offsets=(4, 12)), "b": GOOD_B}, "tensor 'a': starts at byte 4, not 0"),
        (
            {"a": entry(offsets=(2**70, 2**70 + 8)), "b": GOOD_B},
            "tensor 'b': starts at byte 8, not 0: a gap or an overlap",
        ),
        ({"a": entry(), "b": entry(shape=(), offsets=(4, 8))}, "tensor 'b': starts at byte 4, not 8"),
        ({"a": entry(more=1), "b": GOOD_B}, "tensor 'a': must have exactly"),
        ({"a": [], "b": GOOD_B}, "tensor 'a': must have exactly"),
        ([], "header: must be a JSON object"),
        (None, "header: must be a JSON object"),
    ],
)
def test_a_header_that_lies_is_refused_by_name(tmp_path, header, what):
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + np.ones(3, np.float32).tobytes())
    assert re.match(f"x: {what}", refusal(store.read_arrays, tmp_path / "x", SMALL))


def test_duplicate_names_in_a_header_are_refused(tmp_path):
    text = json.dumps({"a": entry(), "b": GOOD_B, "c": entry()}).replace('"c"', '"a"')
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text.encode() + np.ones(3, np.float32).tobytes())
    assert refusal(store.read_arrays, tmp_path / "x", SMALL) == "x: 'a': appears twice; keep one"


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, store.LARGEST_HEADER + 1, 5000])
def test_a_huge_declared_header_is_refused(tmp_path, length):
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + b"{}" + bytes(100))
    assert "header: declares" in refusal(store.read_arrays, tmp_path / "x", SMALL)


def test_sizes_are_compared_before_memory_is_set_aside(tmp_path):
    huge = {"a": ("float32", (2**40,))}
    (tmp_path / "x").write_bytes(bytes(100))
    assert "size" in refusal(store.read_arrays, tmp_path / "x", huge)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room on the disk
    assert "size" in refusal(store.read_arrays, tmp_path / "sparse", SMALL)
    assert "size" in refusal(store.read_json, tmp_path / "sparse")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_unless_allowed(tmp_path, bad):
    store.write_arrays(tmp_path / "x", {"a": np.array([1, bad], np.float32), "b": np.float32(1)})
    assert refusal(store.read_arrays, tmp_path / "x", SMALL).startswith("x: tensor 'a': holds NaN or infinity")
    assert not np.isfinite(store.read_arrays(tmp_path / "x", SMALL, finite=False)["a"][1])


def test_a_byte_that_is_neither_true_nor_false_is_refused(tmp_path):
    store.write_arrays(tmp_path / "x", {"a": np.array([True, False])})
    data = bytearray((tmp_path / "x").read_bytes())
    data[-1] = 2
    (tmp_path / "x").write_bytes(data)
    assert "tensor 'a'" in refusal(store.read_arrays, tmp_path / "x", {"a": ("bool", (2,))})


@settings(max_examples=300)
@given(data=st.data())
def test_a_mutated_file_is_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / f"mutated-{os.getpid()}"
    store.write_arrays(path, {"a": np.ones(2, np.float32), "b": np.float32(1)})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(content) - 1))
        content[index : index + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path.write_bytes(content)
    try:
        found = store.read_arrays(path, SMALL)
    except QomposeError as error:
        assert str(error).isprintable()
    else:
        assert found.keys() == SMALL.keys()


# ------------------------------------------------------------------------------------------------------------ JSON


def test_json_comes_back_equal(tmp_path):
    value = {"name": "α → β", "numbers": [1, -2.5, 1e-300, 2**60], "nothing": None, "flags": [True, False]}
    store.write_json(tmp_path / "x.json", value)
    assert store.read_json(tmp_path / "x.json") == value
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("value", [{"a": float("nan")}, [float("inf")], {"a": {1, 2}}, "\ud800"])
def test_json_that_cannot_be_read_back_is_not_written(tmp_path, value):
    store.write_json(tmp_path / "x.json", 1)
    assert refusal(store.write_json, tmp_path / "x.json", value).startswith("x.json: cannot be written")
    assert store.read_json(tmp_path / "x.json") == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b'{"a": 1, "b": 2, "a": 1}', "'a': appears twice"),
        (b'{"a": {"b": 1, "b": 1}}', "'b': appears twice"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "1e999"),
        (b"[" * 17 + b"]" * 17, "deeper than 16"),
        (b"[" * 100_000, "deeper than 16"),
        (b'{"a":' * 500_000, "size"),
        (b'{"a":' * 20_000, "deeper than 16"),
        (b"[" + b"9" * 5000 + b"]", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"\x80\x04\x95\n.", "not JSON"),
        (b'"' + b"a" * 2**20 + b'"', "size"),
    ],
    ids=range(16),
)
def test_json_beyond_the_strict_form_is_refused(tmp_path, text, what):
    (tmp_path / "x.json").write_bytes(text)
    message = refusal(store.read_json, tmp_path / "x.json")
    assert message.startswith("x.json: ")
    assert what in message


def test_the_deepest_json_is_read(tmp_path):
    (tmp_path / "x.json").write_bytes(b"[" * 16 + b"1" + b"]" * 16)
    store.read_json(tmp_path / "x.json")


# -------------------------------------------------------------------------------------------------- files, folders


def test_links_pipes_and_folders_are_not_read(tmp_path):
    (tmp_path / "real").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe", "absent"):
        assert refusal(store.read_json, tmp_path / name).startswith(f"{name}: ")
        assert refusal(store.sha256_of, tmp_path / name).startswith(f"{name}: ")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_lock_that_is_no_file_is_refused_and_what_it_points_at_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    lock = tmp_path / store.LOCK
    for make in (lambda: lock.symlink_to("thesis.tex"), lambda: os.mkfifo(lock), lock.mkdir):
        make()
        with pytest.raises(QomposeError, match=r"\.lock .*; remove it$"), store.hold(tmp_path):
            pass
        lock.rmdir() if lock.is_dir() else lock.unlink()
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with store.hold(tmp_path):
        pass


def test_refusals_leave_no_descriptor_open(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "x").write_bytes(bytes(4))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        refusal(store.read_json, tmp_path / "folder")
        refusal(store.read_arrays, tmp_path / "x", SMALL)
        refusal(store.publish, tmp_path, write_half)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert store.sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_only_allowed_regular_files_may_lie_in_a_flat_directory(tmp_path):
    (tmp_path / "a").write_text("")
    assert store.check_names(tmp_path, ("a", "b")) == {"a"}
    assert refusal(store.check_names, tmp_path, ("b",)).startswith("'a': does not belong here")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert refusal(store.check_names, tmp_path, ("a", "b")).startswith("b: is a link")
    assert "directory" in refusal(store.check_names, tmp_path / "a", ("a",))
    assert "directory" in refusal(store.check_names, tmp_path / "absent", ("a",))
    assert "directory" in refusal(store.check_names, "a\0b", ("a",))


def write_one(folder):
    (folder / "x").write_text("new")
    (folder / "deep").mkdir()
    (folder / "deep" / "y").write_text("new")


def write_half(folder):
    (folder / "x").write_text("half")
    raise QomposeError("stop")


@pytest.fixture
def target(tmp_path):
    """A published directory with old content, alone in its parent."""
    store.publish(tmp_path / "t", lambda folder: (folder / "x").write_text("old") and None)
    return tmp_path / "t"


def test_a_directory_is_published_with_its_parents(tmp_path):
    store.publish(tmp_path / "p" / "q" / "t", write_one)
    assert (tmp_path / "p" / "q" / "t" / "deep" / "y").read_text() == "new"
    assert os.listdir(tmp_path / "p" / "q") == ["t"]


def test_an_existing_target_is_refused_before_anything_is_written(target):
    called = []
    assert "exists" in refusal(store.publish, target, called.append)
    assert not called
    assert (target / "x").read_text() == "old"
    assert os.listdir(target.parent) == ["t"]


@pytest.mark.parametrize("kind", ["empty folder", "file", "dangling link"])
def test_whatever_stands_at_the_target_is_refused(tmp_path, kind):
    target = tmp_path / "t"
    {"empty folder": target.mkdir, "file": target.touch, "dangling link": lambda: target.symlink_to("nowhere")}[kind]()
    assert "exists" in refusal(store.publish, target, write_one)
    assert os.listdir(tmp_path) == ["t"]


def test_overwriting_replaces_the_whole_directory(target):
    (target / "more").write_text("old")
    store.publish(target, write_one, overwrite=True)
    assert sorted(os.listdir(target)) == ["deep", "x"]
    assert os.listdir(target.parent) == ["t"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_writer_that_fails_leaves_everything_as_it_was(target, overwrite):
    name = "t" if overwrite else "other"
    assert refusal(store.publish, target.parent / name, write_half, overwrite=overwrite) == "stop"
    assert (target / "x").read_text() == "old"
    assert os.listdir(target.parent) == ["t"]


def test_a_full_disk_is_reported_in_one_line(target):
    def fail(folder):
        raise OSError(28, "No space left on device")

    assert "No space left" in refusal(store.publish, target, fail, overwrite=True)
    assert (target / "x").read_text() == "old"


@pytest.mark.parametrize("name", ["/", "a\0b"])
def test_names_that_cannot_be_new_directories_are_refused(name):
    assert "choose another" in refusal(store.publish, name, write_one, overwrite=True)


CRASH = """
import os, sys
from pathlib import Path
from qompose import store

directory, call = Path(sys.argv[1]), int(sys.argv[2])
count = 0
def dying(function):
    def wrapped(*args, **kwargs):
        global count
        count += 1
        if count == call:
            os._exit(9)
        return function(*args, **kwargs)
    return wrapped
for name in ("rename", "fsync", "open", "mkdir", "unlink", "rmdir"):
    setattr(os, name, dying(getattr(os, name)))

def write(folder):
    for name in "xy":
        (folder / name).write_text("new")
store.publish(directory, write, overwrite=True)
"""


def test_a_crash_at_any_system_call_loses_neither_old_nor_new(tmp_path):
    for call in range(1, 60):
        folder = tmp_path / str(call)
        target = folder / "t"
        store.publish(target, lambda new: [(new / name).write_text("old") for name in "xy"] and None)
        ended = subprocess.run([sys.executable, "-c", CRASH, str(target), str(call)], check=False).returncode
        aside = store.left_aside(target)
        read = {(aside or target).joinpath(name).read_text() for name in "xy"}
        assert read in ({"old"}, {"new"}), (call, read)
        store.publish(folder / "other", write_one)  # unrelated names are left alone
        store.publish(target, write_one, overwrite=True)
        assert sorted(os.listdir(folder)) == ["other", "t"]
        assert sorted(os.listdir(target)) == ["deep", "x"]
        if ended == 0:
            assert call > 10  # the loop did reach every call
            return
    pytest.fail("publish made more system calls than were tried")


def test_an_interrupted_overwrite_is_put_back_and_still_refused(target):
    aside = target.with_name(".t.qompose-old")
    os.rename(target, aside)
    assert store.left_aside(target) == aside
    assert "exists" in refusal(store.publish, target, write_one)
    assert (target / "x").read_text() == "old"
    assert store.left_aside(target) is None


def test_a_key_that_appears_twice_is_found_in_one_pass():
    class Name(str):
        compared = 0

        def __eq__(self, other):
            Name.compared += 1
            return str(self) == str(other)

        __hash__ = str.__hash__

    names = [*map(str, range(1000)), "last", "last"]
    with pytest.raises(QomposeError, match="'last': appears twice"):
        store._unique([(Name(name), 0) for name in names])
    assert Name.compared < 10 * len(names)  # a search for each name would be half a million
