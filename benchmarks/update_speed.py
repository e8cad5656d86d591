"""How fast the agents update, against the matrix rate of the very cores they ran on; and the vector environment.

    python -m benchmarks.update_speed [--quick] [--seed 0]

Soft Q-learning with batches of 64 and 128 and 16 + 16 particles, with half and with a quarter of them; DDPG and NAF
with batches of 64; two layers of 128, observations and actions of the pusher, on one core and on two. Each number of
cores is a process of its own that is bound to them before JAX starts. Counted are the operations of the matrix products
that the equations need, nothing else. The parts of soft Q-learning are also timed alone, each as a call of its own.
Writes results/update_speed.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import qompose  # noqa: F401  (registers the tasks)
from benchmarks.machine import best_seconds, matrix_rates, write_results
from benchmarks.yardstick_run import FEWER
from qompose.agents.ddpg import DDPG
from qompose.agents.naf import NAF
from qompose.agents.sql import SQL
from qompose.envs.lockstep import Lockstep
from qompose.replay import init_replay
from qompose.replay import pack as pack_rows
from qompose.training.learner import Form, learn, pack
from qompose.types import Transition
from qompose.view.console import print_table

OBSERVATION, ACTION = 12, 3
BATCHES = (64, 128)
UPDATES = 8  # in one compiled call, as in a round of the training loop
ROWS = 10_000
LANES = 8
PARTS = ("value", "critic with value", "policy", "update")


def perceptron_flops(agent: SQL, batch: int, particles: int, out: int) -> float:
    """One forward pass: the observation's share of the first layer once for each state, the rest for each particle."""
    sizes = (*agent.hidden, out)
    chain = ACTION * sizes[0] + sum(a * b for a, b in itertools.pairwise(sizes))
    return 2.0 * batch * (OBSERVATION * sizes[0] + particles * chain)


def needed_flops(agent: SQL, batch: int) -> dict[str, float]:
    """Matrix products of one update: a gradient costs one more pass for the inputs, and one more for the weights."""

    def critic(particles: int) -> float:
        return perceptron_flops(agent, batch, particles, 1)

    def sampler(particles: int) -> float:
        return perceptron_flops(agent, batch, particles, ACTION)

    return {
        "value": sampler(agent.fit_particles) + critic(agent.value_particles),
        "critic": 3.0 * critic(1),
        "policy": sampler(agent.fixed_particles) + 2.0 * critic(agent.fixed_particles)
        + 3.0 * sampler(agent.updated_particles),
    }  # fmt: skip


def baseline_flops(agent: DDPG | NAF, batch: int) -> float:
    """Matrix products of one update: forward, for the inputs' gradients, and for the weights'."""

    def forward(inputs: int, outputs: int) -> float:
        return 2.0 * batch * sum(a * b for a, b in itertools.pairwise((inputs, *agent.hidden, outputs)))

    if isinstance(agent, NAF):
        heads = 1 + ACTION + ACTION * (ACTION + 1) // 2  # V, μ and the triangle L
        return 4.0 * forward(OBSERVATION, heads)  # target; and forward and backward
    critic, actor = forward(OBSERVATION + ACTION, 1), forward(OBSERVATION, ACTION)
    # Both in the target; the critic forward and backward; the actor, too, through the critic.
    return (critic + actor) + 3.0 * critic + (3.0 * actor + 2.0 * critic)


def count_particles(agent: SQL | DDPG | NAF) -> str:
    """Those of the value, and those of the Stein step."""
    return (
        f"{agent.value_particles} + {agent.fixed_particles + agent.updated_particles}" if isinstance(agent, SQL) else ""
    )


def random_batch(count: int, key: jax.Array) -> Transition:
    keys = jax.random.split(key, 4)
    return Transition(
        observation=jax.random.normal(keys[0], (count, OBSERVATION)),
        action=jax.random.uniform(keys[1], (count, ACTION), minval=-1.0),
        reward=jax.random.normal(keys[2], (count,)),
        next_observation=jax.random.normal(keys[3], (count, OBSERVATION)),
        terminated=jnp.zeros(count),
    )


def seconds_of_parts(agent: SQL, state: Any, seed: int, windows: int) -> dict[str, float]:
    """Seconds of the soft value, the critic's step and the sampler's step, each compiled alone."""
    batch, key = random_batch(agent.batch_size, jax.random.key(seed)), jax.random.key(seed + 1)
    value = jax.jit(lambda s, b, k: agent.estimate_value(s.target, s.sampler, b.next_observation, key=k))
    critic = jax.jit(lambda s, b, k: agent.improve_critic(s, b, key=k))
    policy = jax.jit(
        lambda s, b, k: agent.improve_policy(s.critic, s.sampler, s.sampler_optimiser, b.observation, key=k)
    )
    calls = {"value": value, "critic with value": critic, "policy": policy}
    return {
        name: best_seconds(lambda call=call: call(state, batch, key), windows=windows) for name, call in calls.items()
    }


def seconds_per_update(agent: SQL | DDPG | NAF, seed: int, windows: int) -> tuple[float, Any]:
    """Seconds of one update within the training loop's own compiled call, the state carried on as in training."""
    init_key, data_key = jax.random.split(jax.random.key(seed))
    state = jax.jit(lambda key: agent.init(OBSERVATION, ACTION, key=key))(init_key)
    replay = init_replay(ROWS, OBSERVATION, ACTION).add(random_batch(ROWS, data_key))
    rows, root = np.asarray(pack_rows(random_batch(LANES, jax.random.key(seed + 2)))), jax.random.key(seed + 3)
    form, packed = Form.of(state), pack(state)
    step = 0

    def call() -> Any:
        nonlocal packed, replay, step
        packed, figures, replay = learn(agent, UPDATES, form, packed, replay, rows, root, np.uint32(step))
        step += 1
        return figures

    seconds = best_seconds(call, window=0.05, windows=windows) / UPDATES
    return seconds, form.unpack(packed)


def measure_updates(seed: int, quick: bool) -> dict[str, Any]:
    """What one process finds on the cores that it is bound to."""
    rates = matrix_rates()
    best, rows = max(rates.values()), []
    agents = [
        *(dataclasses.replace(SQL(batch_size=batch), **few) for few in ({}, *FEWER.values()) for batch in BATCHES),
        *(make(batch_size=BATCHES[0]) for make in (DDPG, NAF)),
    ]
    for agent in agents:
        batch = agent.batch_size
        parts = needed_flops(agent, batch) if isinstance(agent, SQL) else {"all": baseline_flops(agent, batch)}
        flops = sum(parts.values())
        seconds, state = seconds_per_update(agent, seed, 3 if quick else 60)
        row: dict[str, Any] = {
            "algorithm": agent.algorithm, "batch": batch, "particles": count_particles(agent),
            "updates_per_second": 1.0 / seconds,
            "megaflop_per_update": 1e-6 * flops, "gigaflop_per_second": 1e-9 * flops / seconds,
            "share_of_matrix_rate": 1e-9 * flops / seconds / best, "milliseconds": {"update": 1e3 * seconds},
        }  # fmt: skip
        if isinstance(agent, SQL):
            spent = seconds_of_parts(agent, state, seed, 10 if quick else 300)
            row["milliseconds"] |= {name: 1e3 * value for name, value in spent.items()}
            row["gigaflop_per_second_of_parts"] = {
                "value": 1e-9 * parts["value"] / spent["value"],
                "critic with value": 1e-9 * (parts["value"] + parts["critic"]) / spent["critic with value"],
                "policy": 1e-9 * parts["policy"] / spent["policy"],
            }
        rows.append(row)
    return {"matrix_rates": rates, "rows": rows}


def on_cores(count: int, arguments: list[str]) -> dict[str, Any]:
    """The same measurement in a process of its own, bound to the first cores before JAX counts them."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    worker = subprocess.run(
        [sys.executable, "-m", "benchmarks.update_speed", "--worker", *arguments],
        capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    if worker.returncode:
        raise SystemExit(f"the measurement on {count} cores failed: {worker.stderr.strip().splitlines()[-1]}")
    return json.loads(worker.stdout)


def steps_per_second(step: Callable[[], None], steps: int, lanes: int) -> float:
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    return lanes * steps / (time.perf_counter() - begin)


def measure_environments(seed: int, quick: bool) -> dict[str, float]:
    """Environment steps per second of the lock-step lanes, and of a plain loop over as many gymnasium.make's.

    Alternated A B A B; medians, and the median of the pairs' ratios.
    """
    steps, rounds = (50, 2) if quick else (600, 9)
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1.0, 1.0, (64, LANES, ACTION)).astype(np.float32)
    lockstep = Lockstep.make("PushLeft", LANES)
    lockstep.reset(seed)
    plain = [gymnasium.make("qompose:PushLeft-v0") for _ in range(LANES)]
    for index, env in enumerate(plain):
        env.reset(seed=seed + index)
    count = 0

    def vector_step() -> None:
        nonlocal count
        count += 1
        lockstep.step(actions[count % 64])

    def plain_step() -> None:
        nonlocal count
        count += 1
        for env, action in zip(plain, actions[count % 64], strict=True):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    pairs = []
    for _ in range(rounds):
        pairs.append([steps_per_second(step, steps, LANES) for step in (vector_step, plain_step)])
    vector, loop = np.median(pairs, axis=0)
    ratio = float(np.median([a / b for a, b in pairs]))
    return {"lanes": LANES, "vector": float(vector), "plain_loop": float(loop), "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few repetitions: the machinery, not the figures")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure_updates(arguments.seed, arguments.quick)))
        return
    passed = ["--seed", str(arguments.seed), *(["--quick"] if arguments.quick else [])]
    available = len(os.sched_getaffinity(0))
    cores = {str(count): on_cores(count, passed) for count in (1, 2) if count <= available}
    environments = measure_environments(arguments.seed, arguments.quick)
    print_table(
        "one update, 2 x 128",
        (
            *("cores", "algorithm", "batch", "particles", "updates/s", "GFLOP/s", "of the matrix rate"),
            f"ms {' / '.join(PARTS)}",
        ),
        [
            (
                count, row["algorithm"], row["batch"], row["particles"], f"{row['updates_per_second']:.0f}",
                f"{row['gigaflop_per_second']:.1f}",
                f"{100 * row['share_of_matrix_rate']:.0f} % of {max(found['matrix_rates'].values()):.0f}",
                " / ".join(f"{row['milliseconds'][name]:.2f}" for name in PARTS if name in row["milliseconds"]),
            )
            for count, found in cores.items() for row in found["rows"]
        ],
    )  # fmt: skip
    print_table(
        f"environment steps per second, {LANES} lanes of PushLeft",
        ("lock-step", "plain loop", "ratio"),
        [(f"{environments['vector']:.0f}", f"{environments['plain_loop']:.0f}", f"{environments['ratio']:.2f}")],
    )
    if not arguments.quick:
        write_results(
            "update_speed", {"cores": cores, "environments": environments},
            command="python -m benchmarks.update_speed", seed=arguments.seed,
        )  # fmt: skip


if __name__ == "__main__":
    main()
