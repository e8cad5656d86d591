"""How long a skill takes to act on one observation, in NumPy on one core, and how far from JAX the action is.

    taskset -c 0 python -m benchmarks.act_speed [--quick] [--seed 0]

A shipped skill (two layers of 128) and a sum of two. Each call has another observation from the replay. p50 and p99 are
those of the quietest of many blocks, the least over the blocks: other work on the machine only adds to a block. The
medians over all blocks are given beside them. Actions of every shipped skill are compared with JAX's, one at a time, in
states drawn from its replay. Writes results/act_speed.json.
"""

from __future__ import annotations

import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import qompose as qp
from benchmarks.machine import write_results
from benchmarks.options import read_options
from qompose.shipped import load, shipped_skills
from qompose.skill.algebra import samplers_of
from qompose.skill.artifact import Skill
from qompose.view.console import print_table

COMMAND = "taskset -c 0 python -m benchmarks.act_speed"
BARS = {"p50": 50.0, "p99": 200.0, "difference": 1e-6}


def microseconds(
    skill: Skill, mode: str, observations: np.ndarray, calls: int, blocks: int, seed: int
) -> dict[str, Any]:
    rng, count = np.random.default_rng(seed), 0
    found = []
    for _ in range(blocks):
        times = np.empty(calls)
        for index in range(calls):
            observation = observations[count % len(observations)]
            count += 1
            begin = time.perf_counter_ns()
            skill.act(observation, mode=mode, rng=rng)
            times[index] = time.perf_counter_ns() - begin
        found.append(np.quantile(times, [0.5, 0.99]) * 1e-3)
    least, middle = np.min(found, axis=0), np.median(found, axis=0)
    return {
        "mode": mode, "calls": calls, "blocks": blocks, "p50": least[0], "p99": least[1],
        "median_block": {"p50": middle[0], "p99": middle[1]},
    }  # fmt: skip


def difference_from_jax(skill: Skill, states: int, seed: int) -> dict[str, Any]:
    """The differences of actions between NumPy and JAX in states of the replay, the same noise given to both.

    And how far either is from the same sampler in double precision.
    """
    (sampler,) = samplers_of(skill)
    assert skill.replay is not None
    act = jax.jit(lambda sampler, observation, noise: jnp.tanh(sampler(observation, noise)))
    rows = np.random.default_rng(seed).integers(len(skill.replay.reward), size=states)
    cases = []
    for index, observation in enumerate(skill.replay.observation[rows]):
        noise = np.random.default_rng([seed, index]).standard_normal(int(skill.action["size"]), dtype=np.float32)
        cases.append((observation, noise))
    mine = [skill.act(case[0], rng=np.random.default_rng([seed, index])) for index, case in enumerate(cases)]
    theirs = [np.asarray(act(sampler, *case)) for case in cases]
    with jax.enable_x64(True):
        double, *cases = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (sampler, *cases))
        exact = [np.asarray(act(double, *case)) for case in cases]

    def apart(some: list[np.ndarray], others: list[np.ndarray]) -> np.ndarray:
        return np.abs(np.subtract(some, others)).max(axis=-1)

    return {
        "skill": skill.name, "states": states, "largest": float(apart(mine, theirs).max()),
        "share_within": float(np.mean(apart(mine, theirs) <= BARS["difference"])),
        "from_exact": {"numpy": float(apart(mine, exact).max()), "jax": float(apart(theirs, exact).max())},
    }  # fmt: skip


def main() -> None:
    arguments = read_options(__doc__, seed=0, quick=False)  # quick: the machinery, not the figures
    if len(os.sched_getaffinity(0)) > 1:  # BLAS counts them when it is imported, so that it is too late to give some up
        raise SystemExit(f"this measures one core: {COMMAND}")
    left, bottom = load("push-left"), load("push-bottom")
    assert left.replay is not None
    observations = np.asarray(left.replay.observation)
    blocks = 2 if arguments.quick else 40
    both = qp.compose(left & bottom, extract=False)
    cases = (("trained", left, "sample", 1000), ("trained", left, "resample", 40),
             ("sum of two, directly", both, "resample", 40))  # fmt: skip
    rows = [
        {"skill": name, **microseconds(skill, mode, observations, calls, blocks, arguments.seed)}
        for name, skill, mode, calls in cases
    ]
    states = 20 if arguments.quick else 2000
    differences = [difference_from_jax(load(name), states, arguments.seed) for name in shipped_skills()]
    largest = float(np.max([found["largest"] for found in differences]))  # which keeps a NaN
    bars = {name: bool(rows[0][name] <= BARS[name]) for name in ("p50", "p99")}
    bars["difference"] = largest <= BARS["difference"]
    print_table(
        "one action (microseconds)", ("skill", "mode", "p50", "p99", "median block"),
        [
            (
                row["skill"], row["mode"], f"{row['p50']:.1f}", f"{row['p99']:.1f}",
                " / ".join(f"{value:.1f}" for value in row["median_block"].values()),
            )
            for row in rows
        ],
    )  # fmt: skip
    print_table(
        f"difference from JAX, {states} states of the replay",
        ("skill", "largest", "share within 1e-6", "NumPy from exact", "JAX from exact"),
        [
            (
                found["skill"], f"{found['largest']:.1e}", f"{found['share_within']:.4f}",
                *(f"{value:.1e}" for value in found["from_exact"].values()),
            )
            for found in differences
        ],
    )  # fmt: skip
    if not arguments.quick:
        write_results(
            "act_speed", {"rows": rows, "differences_from_jax": differences, "limits": BARS, "bars": bars},
            command=COMMAND, seed=arguments.seed,
        )  # fmt: skip


if __name__ == "__main__":
    main()
