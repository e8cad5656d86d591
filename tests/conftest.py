"""Strict settings for every test: they turn silent slips of shape, dtype and random keys into errors."""

import dataclasses
import hashlib
import os
from collections import Counter
from pathlib import Path

import hypothesis
import jax
import numpy as np
import optax
import pytest
from jaxtyping import install_import_hook

# Read when the first array is made. One thread for each worker, so that two workers do not fight over two cores.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
os.environ["NPROC"] = "1"
jax.config.update("jax_platforms", "cpu")

# Before qompose is imported: shapes and types in annotations are checked at every call.
install_import_hook("qompose", "beartype.beartype")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)


# The same examples at every run, so that no run fails by chance; the machine may be busy.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=50)
hypothesis.settings.load_profile("fixed")


def pytest_collection_modifyitems(items):
    """Mark what Hypothesis draws the examples of: `pytest -m property`."""
    for item in items:
        if getattr(item.obj, "is_hypothesis_test", False):
            item.add_marker(pytest.mark.property)


def _relax_optax() -> None:
    """Optax raises a Python float to an integer power, which strict promotion forbids: its own arithmetic is exempt."""
    strict_adam = optax.adam

    def adam(*args, **kwargs):
        transform = strict_adam(*args, **kwargs)

        def update(*args, **kwargs):
            with jax.numpy_dtype_promotion("standard"):
                return transform.update(*args, **kwargs)

        return optax.GradientTransformation(transform.init, update)

    optax.adam = adam


_relax_optax()


@pytest.fixture
def relaxed_jax():
    """For code of others that mixes ranks, dtypes and keys: the defaults of JAX within one test."""
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.debug_key_reuse(False),
    ):
        yield


@pytest.fixture
def compiled():
    """Names of the functions that have been compiled since the test began, and how often each."""
    times = Counter()

    def note(event, duration, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            times[about["fun_name"].removeprefix("jit(").removesuffix(")")] += 1

    jax.monitoring.register_event_duration_secs_listener(note)
    jax.jit(lambda: 0)()
    assert times.pop("<lambda>") == 1  # else no test would see anything
    yield times
    jax.monitoring.unregister_event_duration_listener(note)


# One configuration for all tests that train: equal shapes and settings are compiled once in each worker.
TINY_AGENT = {
    "hidden": (16,),
    "batch_size": 8,
    "value_particles": 4,
    "fit_particles": 2,
    "fixed_particles": 4,
    "updated_particles": 4,
}
TINY_TRAINING = {
    "total_steps": 600,
    "warmup_steps": 200,
    "updates_per_step": 1,
    "num_envs": 4,
    "eval_freq": 0,
    "log_freq": 200,
    "save_freq": 200,
}


@pytest.fixture(scope="session")
def tiny_agent():
    from qompose.agents.sql import SQL

    return SQL(**TINY_AGENT, planned_updates=TINY_TRAINING["total_steps"] - TINY_TRAINING["warmup_steps"])


@pytest.fixture(scope="session")
def tiny_training():
    from qompose.training.online import Training

    return Training(**TINY_TRAINING)


@pytest.fixture(scope="session")
def tiny_flags():
    """The same on the command line."""
    flags = []
    for name, value in {**TINY_AGENT, **TINY_TRAINING}.items():
        values = value if isinstance(value, tuple) else (value,)
        flags += [f"--{name.replace('_', '-')}", *map(str, values)]
    return [*flags, "--progress", "none"]


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory, tiny_agent, tiny_training):
    """The runs of two barely trained skills: to the goal at the right, and to the one at the top."""
    from qompose.training.session import train

    runs = {}
    for name, goal in {"right": 0, "top": 2}.items():
        runs[name] = tmp_path_factory.mktemp("runs") / name
        train(
            "MultiGoal",
            agent=tiny_agent,
            training=tiny_training,
            options={"goals": [goal]},
            output_dir=runs[name],
            name=name,
            track=False,
        )
    return runs


@pytest.fixture(scope="session")
def tiny_skills(tiny_runs):
    from qompose.shipped import load

    return {name: load(run) for name, run in tiny_runs.items()}


@pytest.fixture(scope="session")
def endless_skills(tiny_skills):
    """The same as if they had learned tasks that nothing ends: what a sum loses is known of tasks that end alike."""
    from qompose.types import Transition

    places = {"right": [5.0, 0.0, 1.0], "top": [0.0, 5.0, 1.0]}
    return {
        name: dataclasses.replace(
            skill, terminates=False, task={"id": "Peaks", "options": {"peaks": [places[name]]}},
            replay=Transition(*skill.replay[:4], np.zeros_like(skill.replay.terminated)),
        )
        for name, skill in tiny_skills.items()
    }  # fmt: skip


@pytest.fixture(scope="session")
def fingerprint():
    """A digest of all that is in a folder, names, contents and links: equal before and after, nothing was harmed."""

    def digest(folder):
        total = hashlib.sha256()
        for path in sorted(Path(folder).rglob("*")):
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            total.update(repr((str(path.relative_to(folder)), path.is_dir(), content)).encode())
        return total.hexdigest()

    return digest


@pytest.fixture
def refused(capfd):
    """Run a command that must be refused: one line on standard error, which is returned, and nothing else."""
    from qompose.cli import main

    def run(*arguments):
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert (status, out) == (2, "") and err.startswith("qompose: ") and err.endswith("\n")
        assert err.count("\n") == 1, err
        return err

    return run
