"""Properties of what is written and read: log, store, checkpoints, metrics, replay."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qompose import store
from qompose.evaluation import Evaluation
from qompose.log import Log, Record, Sizes, frame, load_log, read_log
from qompose.replay import init_replay, pack, unpack
from qompose.run import Run, name_leaves, read_metrics, restore_leaves
from qompose.types import QomposeError, Transition

SEEDS = st.integers(0, 2**32 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ARRAYS = st.dictionaries(
    st.text("abc/_.0", min_size=1, max_size=6).filter(lambda name: name.strip("/_.") == name),
    st.tuples(st.sampled_from([*store.DTYPES.values()]), st.lists(st.integers(0, 3), max_size=3), SEEDS),
    max_size=4,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """One file, written anew for every example."""
    return tmp_path_factory.mktemp("properties") / "file"


def log_of(seed):
    """A random log: its bytes, its sizes, its records and where each ends."""
    rng = np.random.default_rng(seed)
    sizes = Sizes(*(int(n) for n in rng.integers(1, 4, 3)))
    data, crc = frame(json.dumps({"version": 1, **sizes._asdict()}).encode(), 0)
    records, ends = [], [len(data)]
    for step in range(int(rng.integers(1, 6))):
        rows = rng.normal(size=(int(rng.integers(0, sizes.lanes + 1)), sizes.width)).astype(np.float32)
        counts = [sizes.lanes * (step + 1), int(rng.integers(0, 2**62)), int(rng.integers(0, 99))]
        body = np.array(counts, "<u8").tobytes() + rows.tobytes()
        record, crc = frame(body, crc)
        data, records = data + record, [*records, Record(*counts, rows)]
        ends.append(len(data))
    return data, sizes, records, ends


def same(one, other):
    return one[:3] == other[:3] and np.array_equal(one.rows, other.rows)


# ----------------------------------------------------------------------------------------------------------------- log


@given(SEEDS)
def test_a_log_gives_back_what_was_appended_and_lies_as_its_docstring_says(path, seed):
    data, sizes, records, ends = log_of(seed)
    path.unlink(missing_ok=True)
    log = Log(path, sizes)
    for record in records:
        log.append(record)
    log.close()
    assert path.read_bytes() == data
    found = load_log(path)
    assert found.sizes == sizes and len(found.records) == len(records) and all(map(same, found.records, records))
    assert [place.length for place in found.places] == ends and found.torn == 0


@given(SEEDS, st.floats(0.0, 1.0))
def test_a_log_torn_anywhere_is_its_whole_records_before_that(seed, share):
    data, _, records, ends = log_of(seed)
    cut = int(share * len(data))
    found, whole = read_log(data[:cut]), sum(end <= cut for end in ends)
    assert len(found.records) == max(whole - 1, 0) and all(map(same, found.records, records))
    assert found.torn == cut - (ends[whole - 1] if whole else 0)


@given(SEEDS, st.floats(0.0, 1.0, exclude_max=True), st.integers(1, 255))
def test_a_byte_that_changed_costs_what_is_written_from_its_record_on_and_nothing_before(seed, share, flip):
    data, _, records, ends = log_of(seed)
    at = int(share * len(data))
    damaged = bytearray(data)
    damaged[at] ^= flip
    found = read_log(bytes(damaged))
    assert len(found.records) == max(sum(end <= at for end in ends) - 1, 0)
    assert all(map(same, found.records, records))


@given(SEEDS, st.integers(0, 4))
def test_records_made_again_leave_every_byte_and_another_one_cuts_the_rest(path, seed, again):
    data, sizes, records, ends = log_of(seed)
    path.write_bytes(data)
    places = load_log(path).places
    again = min(again, len(records) - 1)
    log = Log(path, sizes, places[0])
    for record in records[: again + 1]:
        log.append(record)
    log.sync()
    assert path.read_bytes() == data
    other = records[0]._replace(updates=records[0].updates + 1)
    log.append(other)
    log.close()
    assert path.read_bytes()[: ends[again + 1]] == data[: ends[again + 1]]
    assert all(map(same, load_log(path).records, [*records[: again + 1], other]))
    assert len(load_log(path).records) == again + 2


@given(SEEDS)
def test_a_log_goes_on_only_from_a_place_that_it_has(path, seed):
    data, sizes, records, _ = log_of(seed)
    path.write_bytes(data)
    places = load_log(path).places
    for number, place in enumerate(places):
        log = Log(path, sizes, place)
        left = [*log.remaining(sizes)]
        log.close()
        assert len(left) == len(records) - number and all(map(same, left, records[number:]))
    with pytest.raises(QomposeError, match="not what the checkpoint has seen"):
        Log(path, sizes, places[-1]._replace(crc=places[-1].crc ^ 1))


# --------------------------------------------------------------------------------------------------------------- store


@given(ARRAYS)
def test_arrays_of_every_type_and_shape_come_back_to_the_last_bit(path, described):
    arrays = {}
    for name, (dtype, shape, seed) in described.items():
        rng = np.random.default_rng(seed)
        most = 2 if dtype == np.bool_ else 99
        numbers = rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, most, shape)
        arrays[name] = np.asarray(numbers).astype(dtype)
    store.write_arrays(path, arrays)
    found = store.read_arrays(path, {name: (array.dtype, array.shape) for name, array in arrays.items()})
    assert found.keys() == arrays.keys()
    assert all(found[name].tobytes() == array.tobytes() for name, array in arrays.items())


@given(JSON)
def test_json_comes_back_as_it_was_written(path, value):
    store.write_json(path, value)
    assert store.read_json(path) == value


@given(st.binary(max_size=80) | st.text('{}[]",:0123456789.eE+-ntruefals \\u', max_size=80).map(str.encode))
def test_any_bytes_are_json_as_python_reads_it_or_refused_in_one_line(data):
    try:
        found = store.parse_json(data)
    except QomposeError as error:
        assert str(error).isprintable()
    else:
        assert found == json.loads(data)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.integers(0, 3), st.booleans())
def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path_factory, contents, fail_at, overwrite):
    target = tmp_path_factory.mktemp("publish") / "t"
    standing = None
    for number, content in enumerate(contents):

        def write(folder, number=number, content=content):
            (folder / "x").write_text(str(content))
            if number == fail_at:
                raise RuntimeError("half")

        allowed = number != fail_at and (overwrite or standing is None)
        try:
            store.publish(target, write, overwrite=overwrite)
        except (RuntimeError, QomposeError):
            assert not allowed
        else:
            standing = content
        assert (target / "x").read_text() == str(standing) if standing is not None else not target.exists()
        assert os.listdir(target.parent) == (["t"] if standing is not None else [])


# ----------------------------------------------------------------------------------------------------------------- run


@given(SEEDS)
def test_leaves_of_a_tree_come_back_by_name_and_those_of_another_are_refused(seed):
    rng = np.random.default_rng(seed)
    tree = {"a": rng.normal(size=(2, 3)).astype(np.float32), "b": [np.arange(3, dtype=np.int32), np.float32(seed % 7)]}
    arrays = name_leaves(tree)
    empty = {"a": np.zeros((2, 3), np.float32), "b": [np.zeros(3, np.int32), np.float32(0)]}
    again = name_leaves(restore_leaves(empty, dict(reversed(arrays.items()))))
    assert all(again[name].tobytes() == array.tobytes() for name, array in arrays.items()) and len(again) == 3
    lost = sorted(arrays)[seed % 3]
    with pytest.raises(QomposeError, match=f"{lost} is missing or of another shape"):
        restore_leaves(empty, {name: array for name, array in arrays.items() if name != lost})


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.floats(0.0, 1.0), st.binary(max_size=9))
def test_metrics_cut_anywhere_are_the_lines_before_that(path, values, share, garbage):
    lines = [{"step": step, "value": value} for step, value in enumerate(values)]
    whole = "".join(json.dumps(line) + "\n" for line in lines).encode()
    cut = int(share * len(whole))
    file = path.parent / "metrics.jsonl"
    file.write_bytes(whole[:cut] + b"\n{" + garbage)
    found, kept = read_metrics(path.parent), whole[:cut].count(b"}")
    assert found[:kept] == lines[:kept] and all(isinstance(line["step"], int) for line in found)


@settings(max_examples=20)  # each syncs several files to the disk
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True).map(sorted), st.data())
def test_the_newest_checkpoint_that_is_whole_is_the_one_that_is_loaded(tmp_path_factory, steps, data):
    run = Run(tmp_path_factory.mktemp("run") / "run", {}, events=False)
    for step in steps:
        run.save(step, {"w": np.full(3, step, np.int64)}, {"n": step})
    kept = steps[-2:]
    broken = data.draw(st.sets(st.sampled_from(kept), max_size=len(kept) - 1))
    for step in broken:
        name = data.draw(st.sampled_from(["state.json", "state.safetensors"]))
        file = run.directory / "checkpoints" / f"{step:09d}" / name
        content = bytearray(file.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
    step, arrays, facts = run.load()
    assert step in kept and (arrays["w"] == step).all() and facts == {"n": step}
    assert step >= max(set(kept) - broken)


# ------------------------------------------------------------------------------------------------- replay, evaluation


def transitions(seed, count, observation=2, action=1):
    rng = np.random.default_rng(seed)
    shapes = ((count, observation), (count, action), (count,), (count, observation), (count,))
    return Transition(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


@given(SEEDS, st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
def test_packing_is_undone_by_unpacking(seed, observation, action, count):
    some = transitions(seed, count, observation, action)
    rows = np.asarray(pack(some))
    assert rows.shape == (count, 2 * observation + action + 2)
    for ours, theirs in zip(some, unpack(rows, observation, action), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(SEEDS, st.integers(0, 9))
def test_the_memory_holds_the_last_that_fit_in_whatever_order(seed, rounds):
    replay, rows = init_replay(12, 2, 1), np.zeros((0, 7), np.float32)
    for number in range(rounds):
        some = transitions(seed + number, 4)
        replay, rows = replay.add(some), np.concatenate([rows, np.asarray(pack(some))])
    held = np.asarray(replay.rows)[: int(replay.size)]
    assert int(replay.inserted) == len(rows) and len(held) == min(len(rows), 12)
    np.testing.assert_array_equal(np.sort(held, axis=0), np.sort(rows[-12:], axis=0))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_figures_of_an_evaluation_are_those_of_its_episodes(values):
    episodes = [{"return": value, "lane": 0.0, **({"odd": 1.0} if n else {})} for n, value in enumerate(values)]
    summary = Evaluation("E", episodes).summary()
    assert "odd" not in summary and "lane" not in summary and summary["episodes"] == len(values)
    found = summary["return"]
    assert min(values) <= found["median"] <= max(values)
    np.testing.assert_allclose(found["mean"] * len(values), sum(values), rtol=1e-9, atol=1e-6)
    squares = sum((value - found["mean"]) ** 2 for value in values)
    np.testing.assert_allclose(found["std"] ** 2 * len(values), squares, rtol=1e-6, atol=1e-6)
