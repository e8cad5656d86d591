"""A skill: what a policy is, on disk and in memory. Saved as one flat directory that holds numbers and words, no code.

manifest.json  critic.safetensors  [sampler.safetensors]  [replay.safetensors]  [README.md, for people, never read]
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from qompose import store
from qompose.skill import act
from qompose.skill.card import write_card
from qompose.skill.expression import Expression
from qompose.skill.manifest import FIELDS, FILES, FORMAT, MOST_TRANSITIONS, VERSION, check_fields, check_manifest
from qompose.skill.network import Actor, Critic, Network, Sampler, check_arrays, check_spec, expected_arrays
from qompose.store import naming
from qompose.types import QomposeError, Transition, show

MANIFEST, CARD = "manifest.json", "README.md"
MODES = ("sample", "resample", "best")
# Rows of one forward pass: enough to keep the cores busy, few enough to stay in the cache.
ROWS = 16384
# Of observations and rewards: the squares of larger ones leave float32, and one of them spoils all that learns from it.
LARGEST_EXPERIENCE = 1e15


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Skill(Expression):
    """A trained or composed skill. It acts in [-1, 1]; Q, V and α are in raw reward units. Equality is identity.

    `algorithm` sql, ddpg or naf: it decides the kinds of the networks · `sampler` the policy: a sampler, an actor, or
    None for NAF, whose policy is the maximum of its critic · `temperature` and `estimator` None unless sql ·
    `observation` {size, names or None} · `action` {size, low, high}: real limits, to which [-1, 1] is rescaled ·
    `control_period` seconds or None · `horizon` steps or None · `terminates`: the task has terminal states ·
    `task` {id, options} · `estimator` {proposal, particles, centres, smoothing}: how V is estimated · `composition`
    None or {expression, weights, names}, weights None unless the expression is a weighted sum of skills · `provenance`:
    words for people · `replay` None or float32 arrays.
    Raises QomposeError naming the field that is wrong.
    """

    name: str
    algorithm: str
    critic: Network
    sampler: Network | None
    temperature: float | None
    discount: float
    observation: dict[str, Any]
    action: dict[str, Any]
    control_period: float | None
    horizon: int | None
    terminates: bool
    task: dict[str, Any]
    estimator: dict[str, Any] | None
    composition: dict[str, Any] | None
    provenance: dict[str, Any]
    replay: Transition | None = None

    def __post_init__(self) -> None:
        checked = check_fields({name: getattr(self, name) for name in FIELDS})
        sizes = checked["observation"]["size"], checked["action"]["size"]
        for role in ("critic", "sampler"):
            network = getattr(self, role)
            check_spec(None if network is None else network.spec, role, checked["algorithm"])
            if network is not None:
                with naming(role):
                    checked[role] = Network(copy.deepcopy(network.spec), check_arrays(network, *sizes))
        if self.replay is not None:
            with naming("replay"):
                checked["replay"] = _check_replay(self.replay, *sizes, checked["terminates"])
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return self.name

    # ------------------------------------------------------------------------------------------------------ acting

    @cached_property
    def _critic(self) -> Critic:
        return Critic(self.critic)

    @cached_property
    def _sampler(self) -> Sampler:
        assert self.sampler is not None
        return Sampler(self.sampler)

    @cached_property
    def _actor(self) -> Actor:
        assert self.sampler is not None
        return Actor(self.sampler)

    @cached_property
    def _rng(self) -> np.random.Generator:
        return np.random.default_rng()

    def act(self, observation: Any, mode: str = "sample", rng: np.random.Generator | None = None) -> np.ndarray:
        """Actions in [-1, 1] for one observation (obs,) -> (act,) or several (n, obs) -> (n, act), float32.

        mode `sample`: one draw of the policy: of the sampler, or, where a composition has none of its own, by
        `resample`: importance resampling among 256 candidates, which tends to exp(Q/α). `best`: the highest Q among
        draws of the sampler and uniform ones, a heuristic. DDPG and NAF have a deterministic `sample` and no
        `resample`, and `best` of NAF is exact. Raises QomposeError for an unknown mode, a wrong shape or numbers that
        are not finite. Without `rng` the draws are not reproducible.
        """
        if mode not in MODES:
            raise QomposeError(f"mode {show(mode)} is unknown; choose one of {', '.join(MODES)}")
        if mode == "resample":
            self._need_temperature("nothing to resample by; use mode sample")
        if self.sampler is not None and self.sampler.spec["kind"] == "candidates" and mode == "sample":
            mode = "resample"  # the samplers of its parts know nothing of the sum
        choose = {"sample": self._sample, "resample": self._resample, "best": self._best}[mode]
        width = 1 if mode == "sample" else act.CANDIDATES
        return self._map(choose, observation, width, rng)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        """Action in [-1, 1] and None, as Stable-Baselines3 has it: a sample, or the best of fixed candidates.

        The policies of DDPG and NAF are deterministic, so that it makes no difference.
        """
        if deterministic and self.algorithm == "sql":
            return self.act(observation, mode="best", rng=np.random.default_rng(0)), None
        return self.act(observation), None

    def q(self, observation: Any, action: Any) -> np.ndarray:
        """Q(s, a) in raw reward units. observation: (*batch, obs), action: (*batch, act), one or no batch axis."""
        rows, single = self._rows(observation, "observation", self.observation["size"])
        actions, _ = self._rows(action, "action", self.action["size"])
        if len(rows) != len(actions):
            raise QomposeError(f"skill {self.name!r}: {len(rows)} observations but {len(actions)} actions")
        blocks = [slice(begin, begin + ROWS) for begin in range(0, len(rows), ROWS)]
        with np.errstate(over="ignore", invalid="ignore"):
            found = [self._critic.at(rows[block])(actions[block, None, :])[:, 0] for block in blocks]
        values = act.check_finite(np.concatenate(found))
        return values[0, ...] if single else values

    def value(self, observation: Any, rng: np.random.Generator | None = None) -> np.ndarray:
        """V(s) = α log E_{a~U} exp(Q(s, a)/α) as `estimator` says, in raw reward units. (*batch, obs) -> (*batch,)

        Raises QomposeError for skills of DDPG and NAF.
        """
        self._need_temperature("no soft value")
        assert self.estimator is not None
        return self._map(self._value, observation, self.estimator["particles"], rng)

    def _need_temperature(self, without: str) -> float:
        if self.temperature is None:
            raise QomposeError(f"skill {self.name!r} learned with {self.algorithm}: no temperature, so {without}")
        return self.temperature

    def to_environment(self, action: Any) -> np.ndarray:
        """Rescale actions (*batch, act) from [-1, 1] to the real limits, float32. Refuses anything outside, and NaN."""
        scaled = np.asarray(action, dtype=np.float64)
        if not (scaled.shape[-1:] == (self.action["size"],) and np.all((scaled >= -1.0) & (scaled <= 1.0))):
            raise QomposeError(f"skill {self.name!r}: an action must be {self.action['size']} numbers in [-1, 1]")
        low, high = (np.asarray(self.action[name]) for name in ("low", "high"))
        limits = low.astype(np.float32), high.astype(np.float32)
        return np.clip((low + (scaled + 1.0) / 2.0 * (high - low)).astype(np.float32), *limits)

    def _sample(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.algorithm == "naf":
            return act.check_finite(self._critic.maximise(rows))
        if self.algorithm == "ddpg":
            return act.check_finite(self._actor(rows), "actor")
        return np.tanh(act.check_finite(self._sampler.draw(rows, 1, rng)[0][:, 0, :], "sampler"))

    def _resample(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        particles, temperature = self._particles(rows, act.PARTICLES, rng), self._need_temperature("")
        return act.resample(self._critic.at(rows), particles, temperature, rng)

    def _best(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.algorithm == "naf":
            return self._sample(rows, rng)
        if self.algorithm == "ddpg":
            return act.best_around(self._critic.at(rows), self._sample(rows, rng), rng)
        return act.best(self._critic.at(rows), self._particles(rows, act.PARTICLES, rng), rng)

    def _value(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        how, temperature, q = self.estimator, self._need_temperature(""), self._critic.at(rows)
        assert how is not None
        if how["proposal"] == "uniform":
            actions = act.draw_uniform(rng, (len(rows), how["particles"], self.action["size"]))
            return act.estimate_value(q, actions, 0.0, temperature)
        particles = self._particles(rows, how["centres"], rng)
        candidates = act.draw_candidates(particles, rng, how["particles"], how["smoothing"])
        return act.estimate_value(q, *candidates, temperature)

    def _particles(self, rows: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        parts = len(self._sampler.parts)
        each = count if parts == 1 else max(-(-count // parts), act.FEWEST_PARTICLES)
        return [act.check_finite(u, "sampler") for u in self._sampler.draw(rows, each, rng)]

    def _map(
        self,
        function: Callable[[np.ndarray, np.random.Generator], np.ndarray],
        observation: Any,
        width: int,
        rng: np.random.Generator | None,
    ) -> np.ndarray:
        """Apply a function of (rows, obs) in blocks that fit the cache."""
        rows, single = self._rows(observation, "observation", self.observation["size"])
        if rng is None:
            rng = self._rng
        elif not isinstance(rng, np.random.Generator):
            raise QomposeError(
                f"rng must be a numpy.random.Generator, not {show(rng)}; use numpy.random.default_rng(seed)"
            )
        block = max(1, ROWS // width)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"), naming(f"skill {self.name!r}"):
            if len(rows) <= block:
                result = function(rows, rng)
            else:
                result = np.concatenate([function(rows[i : i + block], rng) for i in range(0, len(rows), block)])
        return result[0, ...] if single else result

    def _rows(self, numbers: Any, what: str, size: int) -> tuple[np.ndarray, bool]:
        """One or several vectors as finite float32 rows (n, size), and whether it was one."""
        try:
            with np.errstate(over="ignore"):
                array = np.asarray(numbers, dtype=np.float32)
        except (TypeError, ValueError):
            raise QomposeError(f"skill {self.name!r}: the {what} must be numbers, not {show(numbers)}") from None
        if array.ndim not in (1, 2) or array.shape[-1] != size or not array.size:
            raise QomposeError(
                f"skill {self.name!r}: the {what} must have shape ({size},) or (n, {size}), not {array.shape}"
            )
        if not np.isfinite(array).all():
            raise QomposeError(f"skill {self.name!r}: the {what} holds NaN or infinity; stop and check the sensors")
        return array.reshape(-1, size), array.ndim == 1

    # ------------------------------------------------------------------------------------------------------ saving

    def strip(self) -> Skill:
        """The same skill without its data: it acts, but cannot be composed offline."""
        return dataclasses.replace(self, replay=None)

    def save(self, directory: str | os.PathLike[str], *, replay: bool = True, overwrite: bool = False) -> Path:
        """Write the skill as a directory that appears whole or not at all; returns its path.

        An existing directory is refused. With `overwrite`, a skill (and its card) is replaced; anything else is not.
        """
        target = Path(directory)
        data = self.replay if replay else None
        with naming(f"skill {show(str(directory))}"):
            if overwrite:
                _check_replaceable(target)
            store.publish(target, lambda folder: self._write(folder, data), overwrite=overwrite)
        return target

    def thin(self, transitions: int) -> Skill:
        """The same skill with at most so many transitions, evenly spaced over its replay: a smaller file to share.

        Raises QomposeError for fewer than one, or if the skill has no replay.
        """
        if not isinstance(transitions, Integral) or transitions < 1:
            raise QomposeError(f"transitions is {show(transitions)}; keep a whole number from 1 on, or save without")
        if self.replay is None:
            raise QomposeError(f"skill {self.name!r} carries no replay")
        length = len(self.replay.reward)
        rows = np.linspace(0, length - 1, min(transitions, length)).round().astype(np.int64)
        return dataclasses.replace(self, replay=Transition(*(field[rows] for field in self.replay)))

    def _write(self, folder: Path, replay: Transition | None) -> None:
        parts: dict[str, Any] = {FILES[0]: self.critic.arrays}
        if self.sampler is not None:
            parts[FILES[1]] = self.sampler.arrays
        if replay is not None:
            parts[FILES[2]] = replay._asdict()
        for name, arrays in parts.items():
            store.write_arrays(folder / name, arrays)
        fields, transitions = {name: getattr(self, name) for name in FIELDS}, replay and len(replay.reward)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            **fields,
            "critic": self.critic.spec,
            "sampler": None if self.sampler is None else self.sampler.spec,
            "transitions": transitions,
            "files": {
                name: {"bytes": (folder / name).stat().st_size, "sha256": store.sha256_of(folder / name)}
                for name in parts
            },
        }
        store.write_json(folder / MANIFEST, manifest)
        if (folder / MANIFEST).stat().st_size > store.LARGEST_JSON:
            raise QomposeError(f"{MANIFEST}: is larger than {store.LARGEST_JSON} bytes; shorten the provenance")
        (folder / CARD).write_text(write_card(fields, transitions), encoding="utf-8")
        check_manifest(store.read_json(folder / MANIFEST))  # what could not be loaded again takes no skill's place

    @classmethod
    def load(cls, directory: str | os.PathLike[str], *, replay: bool = True) -> Skill:
        """Read a skill, its data included unless `replay` is false. Runs no code from it and writes nothing.

        Raises QomposeError, one line `skill 'DIR': field: what is wrong`, for anything but a whole and valid skill.
        """
        with naming(f"skill {show(str(directory), 200)}"):
            return cls(**_read(Path(directory), replay))


def load(directory: str | os.PathLike[str], *, replay: bool = True) -> Skill:
    """Read a skill from its directory: `Skill.load`."""
    return Skill.load(directory, replay=replay)


def _read(directory: Path, replay: bool) -> dict[str, Any]:
    if aside := store.left_aside(directory):
        raise QomposeError(f"an interrupted save left it at {show(str(aside), 300)}; rename that back")
    if directory.is_dir() and not os.path.lexists(directory / MANIFEST):
        raise QomposeError(f"{MANIFEST}: is missing; this is not a skill")
    found = store.check_names(directory, (MANIFEST, CARD, *FILES))
    manifest = store.read_json(directory / MANIFEST)
    with naming(MANIFEST):
        manifest = check_manifest(manifest)
    if present := (found - {MANIFEST, CARD}) ^ set(manifest["files"]):
        name = min(present)
        raise QomposeError(f"{name}: {'is not named in the manifest; remove it' if name in found else 'is missing'}")
    sizes = manifest["observation"]["size"], manifest["action"]["size"]
    expected = {
        name: expected_arrays(manifest[role], *sizes)
        for role, name in zip(("critic", "sampler"), FILES, strict=False)
        if manifest[role] is not None
    }
    if manifest["transitions"] is not None and replay:
        expected[FILES[2]] = {
            name: ("float32", shape) for name, shape in _replay_shapes(manifest["transitions"], *sizes).items()
        }
    arrays = {}
    for name, wanted in expected.items():
        declared = manifest["files"][name]
        if (size := (directory / name).lstat().st_size) != declared["bytes"]:
            raise QomposeError(
                f"{name}: size: {size} bytes, the manifest declares {declared['bytes']}; get a fresh copy"
            )
        arrays[name] = store.read_arrays(directory / name, wanted, sha256=declared["sha256"])
    return {
        **{name: manifest[name] for name in FIELDS},
        "critic": Network(manifest["critic"], arrays[FILES[0]]),
        "sampler": Network(manifest["sampler"], arrays[FILES[1]]) if FILES[1] in arrays else None,
        "replay": Transition(**arrays[FILES[2]]) if FILES[2] in arrays else None,
    }


def _replay_shapes(count: int, observation_size: int, action_size: int) -> dict[str, tuple[int, ...]]:
    observations, scalars = (count, observation_size), (count,)
    return Transition(observations, (count, action_size), scalars, observations, scalars)._asdict()


def _check_replay(replay: Transition, observation_size: int, action_size: int, terminates: bool) -> Transition:
    arrays = {name: np.asarray(array).view() for name, array in replay._asdict().items()}
    count = len(arrays["reward"]) if arrays["reward"].ndim else 0
    if not 1 <= count <= MOST_TRANSITIONS:
        raise QomposeError(f"reward: must be 1 to {MOST_TRANSITIONS} numbers, not {count}; use None for no data")
    for name, shape in _replay_shapes(count, observation_size, action_size).items():
        array = arrays[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise QomposeError(f"{name}: must be float32 {list(shape)}, not {array.dtype} {list(array.shape)}")
        if not (array.min() >= -LARGEST_EXPERIENCE and array.max() <= LARGEST_EXPERIENCE):  # NaN is refused, too
            raise QomposeError(f"{name}: holds NaN or numbers beyond {LARGEST_EXPERIENCE:g}; drop those transitions")
        array.flags.writeable = False
    if not (arrays["action"].min() >= -1.0 and arrays["action"].max() <= 1.0):
        raise QomposeError("action: must lie in [-1, 1]; rescale from the real limits")
    terminated = arrays["terminated"]
    if np.count_nonzero(terminated == 0.0) + np.count_nonzero(terminated == 1.0) != count:
        raise QomposeError("terminated: must be 0 or 1")
    if not terminates and terminated.max() > 0.0:
        raise QomposeError("terminated: is 1 somewhere, but the skill says that its task does not terminate")
    return Transition(**arrays)


# ---------------------------------------------------------------------------------------------------- compatibility


def check_place(directory: Path, *, overwrite: bool) -> None:
    """Refuse a place at which a skill could not be saved, before the work of making it; writes nothing."""
    if os.path.lexists(directory) and not overwrite:
        raise QomposeError(f"{directory} exists already; choose another --output-dir or give --overwrite")
    with naming(f"skill {show(str(directory))}"):
        if not overwrite and (aside := store.left_aside(directory)):
            raise QomposeError(
                f"an interrupted save left it at {show(str(aside), 300)}; rename that back, or remove it"
            )
        _check_replaceable(directory)
        above = next(place for place in directory.absolute().parents if os.path.lexists(place))
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise QomposeError(f"{above} is no folder that can be written to; choose another place")


def _check_replaceable(directory: Path) -> None:
    if os.path.lexists(directory):
        found = store.check_names(directory, (MANIFEST, CARD, *FILES))
        if found and MANIFEST not in found:
            raise QomposeError("is not a skill and is not overwritten; choose another name")


def check_skills(values: Iterable[Any]) -> None:
    """Refuse what is no skill, such as the name of one."""
    for value in values:
        if not isinstance(value, Skill):
            raise QomposeError(f"{show(value)} is not a skill; load it first: qompose.load")


def check_compatible(skills: Sequence[Skill]) -> None:
    """Refuse skills that cannot be composed, with the reason. Different temperatures are fine."""
    if not skills:
        raise QomposeError("there is nothing to compose; give at least one skill")
    check_skills(skills)
    first = skills[0]
    for other in skills[1:]:
        for what, mine, theirs, advice in _differences(first, other):
            if mine != theirs:
                pair = f"skills {first.name!r} and {other.name!r}"
                raise QomposeError(f"{pair}: {what}: {show(mine)} and {show(theirs)} differ; {advice}")


def _differences(a: Skill, b: Skill) -> Iterator[tuple[str, Any, Any, str]]:
    retrain = "train one of them again with the other's"
    yield "algorithm", a.algorithm, b.algorithm, "only values of one algorithm can be added"
    yield "observation.size", a.observation["size"], b.observation["size"], "both must see the same observation"
    if a.observation["names"] is not None and b.observation["names"] is not None:
        for mine, theirs in zip(a.observation["names"], b.observation["names"], strict=True):
            yield "observation.names", mine, theirs, "both must see the same observation in the same order"
    for name in ("size", "low", "high"):
        yield f"action.{name}", a.action[name], b.action[name], "both must move the same actuators"
    yield "discount", a.discount, b.discount, retrain
    yield "control_period", a.control_period, b.control_period, retrain
    yield "terminates", a.terminates, b.terminates, "terminal states change what a value means"
