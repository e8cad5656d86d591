"""A corpus of hostile skills by class of attack. Each is signed again, and refused in one line that names the field.

Not here, because no file can be blamed for them: services, and well-formed skills that act badly or drown others in a
sum; see docs/reliability.md.
"""

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zipfile

import numpy as np
import pytest

from qompose import store
from qompose.skill.artifact import load
from qompose.types import QomposeError

CRITIC, SAMPLER, REPLAY, MANIFEST = "critic.safetensors", "sampler.safetensors", "replay.safetensors", "manifest.json"
TENSORS = (CRITIC, SAMPLER, REPLAY)


def sign(directory):
    """Make sizes and hashes of the manifest fit the files, if there is still a manifest to do it in."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        for name in manifest["files"]:
            if not (directory / name).is_file() or (directory / name).is_symlink():  # nor read a pipe or a device
                continue
            data = (directory / name).read_bytes()
            manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    except (ValueError, OSError, KeyError, TypeError, RecursionError):
        return
    (directory / MANIFEST).write_text(json.dumps(manifest))


def write(name, data):
    return lambda directory: (directory / name).write_bytes(data)


def put(*path, to):
    """Set a field of the manifest."""

    def change(directory):
        manifest = node = json.loads((directory / MANIFEST).read_bytes())
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = to
        (directory / MANIFEST).write_text(json.dumps(manifest))

    return change


def replace(old, new):
    """Change the text of the manifest after signing, so that nothing tidies it up."""

    def change(directory):
        sign(directory)
        text = (directory / MANIFEST).read_text()
        assert old in text
        (directory / MANIFEST).write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogatepass"))

    change.signed = True
    return change


def number(name, tensor, value, index=0):
    """Overwrite one number of a tensor."""

    def change(directory):
        data = bytearray((directory / name).read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        begin = start + json.loads(data[8:start])[tensor]["data_offsets"][0] + 4 * index
        data[begin : begin + 4] = np.float32(value).tobytes()
        (directory / name).write_bytes(data)

    return change


def header(name, change_header):
    """Change the header of a tensor file as JSON, its length set right."""

    def change(directory):
        data = (directory / name).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        parsed = json.loads(data[8:start])
        text = json.dumps(change_header(parsed) or parsed).encode()
        (directory / name).write_bytes(len(text).to_bytes(8, "little") + text + data[start:])

    return change


def exchange(first, second):
    def change(directory):
        (directory / first).rename(directory / "aside")
        (directory / second).rename(directory / first)
        (directory / "aside").rename(directory / second)

    return change


def other_skill(name):
    """A file of another skill, with another shape, in place of the right one."""

    def change(directory):
        arrays = {"weight": np.zeros((3, 3), np.float32), "bias": np.zeros(3, np.float32)}
        store.write_arrays(directory / name, arrays)

    return change


def link(name, to):
    def change(directory):
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(to)

    return change


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../evil.py", "import os")
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    return file.getvalue()


PICKLE = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
NUMPY = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + PICKLE
BOMB = json.dumps({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(9000)}).encode()
CODE = ["os.system", "__import__('os').system('true')", "torch.load", "builtins.eval", "qompose.cli:main", "!!python"]
BAD = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf}
WORDS = {
    "escape": "\x1b[2J",
    "right to left": "\u202e",
    "zero": "\0",
    "line": "a\nb",
    "wide": "\u2028",
    "half": "\ud800",
}


def swap_names(parsed):
    keys = sorted(parsed)
    parsed[keys[0]], parsed[keys[1]] = parsed[keys[1]], parsed[keys[0]]


def overlap(parsed):
    for entry in parsed.values():
        length = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry["data_offsets"] = [0, length]


def entry_of(tensor, **fields):
    return lambda parsed: parsed[tensor].update(fields)


CORPUS = {
    "code in the object": [
        *((f"pickle as {name}", write(name, PICKLE * 99), name) for name in TENSORS),
        *((f"object array as {name}", write(name, NUMPY * 30), name) for name in TENSORS),
        ("pickle as the manifest", write(MANIFEST, PICKLE), MANIFEST),
        *((f"a file {name}", write(name, b"import os"), f"'{re.escape(name)}': does not belong")
          for name in ("run.py", "__init__.py", "skill.pkl", "critic.pt", "conftest.py", "libx.so")),
    ],
    "code named in the configuration": [
        ("a gpi of no policies", put("critic", to={"kind": "gpi", "of": []}), r"manifest\.json: critic\.of"),
        ("a gpi of a gpi", put("critic", to={"kind": "gpi", "of": [{"kind": "gpi"}]}), r".*critic\.of: must be net"),
        *((f"kind {word}", put("critic", "kind", to=word), r"manifest\.json: critic\.kind") for word in CODE),
        *((f"algorithm {word}", put("algorithm", to=word), r"manifest\.json: algorithm") for word in CODE),
        *((f"field {word}", put(word, to="torch.nn.Module"), r"manifest\.json: .*is unknown")
          for word in ("_target_", "class_path", "auto_map", "__reduce__", "policy_class", "trust_remote_code")),
        ("a class in the network", put("critic", "_target_", to="os.system"), r"manifest\.json: critic\.'_target_'"),
    ],
    "format confusion": [
        ("UTF-16", replace("{", "\ufeff{"), MANIFEST),
        ("compressed", write(MANIFEST, gzip.compress(b"{}")), MANIFEST),
        ("YAML", write(MANIFEST, b"format: qompose-skill\n"), MANIFEST),
        ("a list", write(MANIFEST, b"[]"), r"manifest\.json: manifest"),
        ("JSON as tensors", write(CRITIC, b'{"weight": [1, 2]}' * 99), CRITIC),
        ("HDF5 as tensors", write(CRITIC, b"\x89HDF\r\n\x1a\n" * 300), CRITIC),
        ("GGUF as tensors", write(CRITIC, b"GGUF\x03\0\0\0" * 300), CRITIC),
        ("comments", replace("{", "/* c */ {"), MANIFEST),
        ("two documents", replace("{", "{} {"), MANIFEST),
        ("another format", put("format", to="lerobot"), r"manifest\.json: format"),
    ],
    "archives": [
        *((f"{kind} as {name}", write(name, data), name)
          for kind, data in (("zip", zipped() * 20), ("tar", tarred())) for name in (CRITIC, MANIFEST)),
        ("a zip beside", write("weights.zip", zipped()), r"'weights\.zip': does not belong"),
        ("a tar beside", write("skill.tar", tarred()), r"'skill\.tar': does not belong"),
    ],
    "bombs": [
        ("a header of 2**63 bytes", write(CRITIC, b"\xff" * 7 + b"\x7f" + bytes(2000)), CRITIC),
        ("a header of many names", write(CRITIC, len(BOMB).to_bytes(8, "little") + BOMB), CRITIC),
        ("nesting", write(MANIFEST, b"[" * 100_000), MANIFEST),
        ("nested objects", write(MANIFEST, b'{"a":' * 50_000), MANIFEST),
        ("long digits", replace('"version": 1', '"version": ' + "9" * 5000), MANIFEST),
        ("a large manifest", write(MANIFEST, b" " * (store.LARGEST_JSON + 1)), r"manifest\.json: size"),
        ("many transitions", put("transitions", to=99_999_999), r"replay\.safetensors: size"),
        ("wide observations", put("observation", "size", to=10_000), r"manifest\.json: observation"),
        ("wide layers", put("critic", "hidden", to=[4096] * 8), r"critic\.safetensors: size"),
        ("too wide a layer", put("critic", "hidden", to=[2**31]), r"manifest\.json: critic\.hidden"),
        ("a large soft value", put("estimator", "centres", to=65536), r"manifest\.json: estimator"),
        ("many words", put("provenance", "x", to=["x"] * 3000), r"manifest\.json: provenance"),
        ("a tensor of 2**42 bytes", header(CRITIC, entry_of("bias_0", shape=[2**40], data_offsets=[0, 2**42])), CRITIC),
        ("a horizon of 10**300", put("horizon", to=10**300), r"manifest\.json: horizon"),
    ],
    "numbers that are not finite or too large": [
        *((f"{kind} in {name}", number(name, tensor, value), name)
          for kind, value in BAD.items()
          for name, tensor in ((CRITIC, "weight_out"), (SAMPLER, "bias_0"), (REPLAY, "reward"))),
        ("no scale", number(CRITIC, "scale", 0.0), "critic: tensor 'scale'"),
        ("a negative scale", number(CRITIC, "scale", -1.0), "critic: tensor 'scale'"),
        ("no scale of observations", number(SAMPLER, "observation_scale", 0.0), "sampler: tensor 'observation_scale'"),
        *((f"{word} as temperature", replace('"temperature": 0.1', f'"temperature": {word}'), MANIFEST)
          for word in ("NaN", "Infinity", "-Infinity", "1e999", "1e-999", '"0.1"', "true")),
    ],
    "hidden keys and control characters": [
        ("a key twice", replace('"name": "left"', '"name": "left", "name": "left"'), r"manifest\.json: 'name': app"),
        ("a kind twice", replace('"kind"', '"kind": "sum", "kind"'), r"manifest\.json: 'kind': appears twice"),
        ("a dtype twice", write(CRITIC, (30).to_bytes(8, "little") + b'{"a":1,"a":2}'.ljust(30) + bytes(2000)), CRITIC),
        *((f"{kind} in the name", put("name", to=f"left{word}"), r"manifest\.json: name")
          for kind, word in WORDS.items() if kind != "half"),
        *((f"{kind} in the task", put("task", "id", to=f"a{word}b"), r"manifest\.json: task\.id")
          for kind, word in WORDS.items()),
        *((f"{kind} as a key", put("provenance", f"a{word}", to=1), r"manifest\.json: provenance")
          for kind, word in WORDS.items()),
        ("a hidden file", write(".config", b""), r"'\.config': does not belong"),
        ("metadata in the header", header(CRITIC, lambda h: h.update(__metadata__={"a": "b"})), CRITIC),
    ],
    "paths": [
        *((f"the name {name}", put("name", to=name), r"manifest\.json: name")
          for name in ("../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "C:x", "..", "~root", "")),
        *((f"the file {name}", put("files", name, to={"bytes": 0, "sha256": "0" * 64}), r"manifest\.json: files")
          for name in ("../evil", "/etc/passwd", "x.safetensors")),
        ("a link to a device", link(CRITIC, "/dev/zero"), f"{CRITIC}: is a link"),
        ("a link upward", link(REPLAY, "../../../etc/passwd"), f"{REPLAY}: is a link"),
        ("a link as card", link("README.md", "/etc/passwd"), r"README\.md: is a link"),
        ("a pipe", lambda d: ((d / CRITIC).unlink(), os.mkfifo(d / CRITIC)), f"{CRITIC}: is a link or no regular file"),
        ("a folder", lambda d: ((d / CRITIC).unlink(), (d / CRITIC).mkdir()), f"{CRITIC}: is a link or no regular"),
    ],
    "hostile scenes": [
        ("a scene", write("scene.xml", b"<mujoco><include file='/etc/passwd'/></mujoco>"), r"'scene\.xml': does not"),
        ("a mesh", write("hand.obj", b"v 0 0 0"), r"'hand\.obj': does not belong"),
        ("a scene as a field", put("scene", to="<mujoco/>"), r"manifest\.json: scene: is unknown"),
    ],
    "poisoned replay": [
        ("an action out of the box", number(REPLAY, "action", 1.01), "replay: action"),
        ("half an end", number(REPLAY, "terminated", 0.5), "replay: terminated"),
        ("an end that cannot be", number(REPLAY, "terminated", 1.0), "replay: terminated"),
        ("a reward that spoils all", number(REPLAY, "reward", 3e38), "replay: reward"),
        ("an observation that spoils all", number(REPLAY, "observation", -1e30), "replay: observation"),
        ("the next one", number(REPLAY, "next_observation", 1e16), "replay: next_observation"),
    ],
    "swapped files": [
        ("critic and sampler", exchange(CRITIC, SAMPLER), CRITIC),
        ("critic and replay", exchange(CRITIC, REPLAY), CRITIC),
        *((f"{name} of another", other_skill(name), name) for name in TENSORS),
        ("tensors by name", header(CRITIC, swap_names), CRITIC),
        ("tensors over each other", header(CRITIC, overlap), CRITIC),
        ("another dtype", header(CRITIC, entry_of("bias_0", dtype="I32")), f"{CRITIC}: tensor 'bias_0': dtype"),
        ("another shape", header(CRITIC, entry_of("bias_0", shape=[2, 4])), r"critic\.safetensors: tensor 'bias_0'"),
        ("no sampler", lambda d: (d / SAMPLER).unlink(), f"{SAMPLER}: is missing"),
    ],
}  # fmt: skip
CASES = {f"{kind}: {label}": (change, field) for kind, cases in CORPUS.items() for label, change, field in cases}


def test_the_corpus_is_as_large_as_promised():
    assert len(CASES) >= 100 and len(CASES) == sum(map(len, CORPUS.values()))


@pytest.mark.parametrize(("change", "field"), CASES.values(), ids=CASES)
def test_a_hostile_skill_is_refused_in_one_line_that_names_the_field(make_skill, tmp_path, change, field):
    directory = make_skill().save(tmp_path / "left")
    load(directory)
    change(directory)
    if not getattr(change, "signed", False):
        sign(directory)
    with pytest.raises(QomposeError) as caught:
        load(directory)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000
    assert re.match(f"skill {re.escape(repr(str(directory)))}: {field}", message), message
