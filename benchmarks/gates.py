"""Learning gates: short trainings of every agent whose outcome is known, and the limits of a clean one.

    python -m benchmarks.gates

Limits are set from the first seeds and false alarms counted on all. The tests (`tests/test_gates.py`) train one other
seed of each gate and hold it to the limits. Writes results/gates.json after every seed; `--resume` goes on there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from benchmarks.corridor import make_lanes, solve
from benchmarks.machine import RESULTS, write_results
from qompose.agents.ddpg import DDPG
from qompose.agents.naf import NAF
from qompose.agents.sql import SQL
from qompose.envs.episodes import run_episodes
from qompose.envs.lockstep import Lockstep
from qompose.training.online import Training, follow, train_online

# A limit lies beyond the worst of the calibrating seeds by this share of its distance from the median. With four goals
# it had to be more: with 1, 2 of 100 clean trainings, which had found two of the goals, were alarms.
MARGIN, MARGIN_OF_GOALS = 1.0, 1.5
CALIBRATING = 30
# Where Q and the policy are compared with the exact ones: states that are often seen, and any action.
STATES = np.linspace(-0.8, 0.6, 8)
ACTIONS = np.linspace(-0.9, 0.9, 7)
DRAWS = 500
LANES = 16


# Compiled once, not once for every seed.
evaluate_critic = jax.jit(lambda critic, observations, actions: jax.vmap(critic)(observations, actions))


def to_columns(*values: np.ndarray) -> list[np.ndarray]:
    """Each (n,) -> (n, 1), float32."""
    return [value[:, None].astype(np.float32) for value in values]


def act(agent: Any, state: Any, observations: np.ndarray, step: int = 0) -> np.ndarray:
    """Actions of the policy, one for each observation."""
    return np.asarray(follow(agent, state, observations, jax.random.key(7), np.uint32(step)))


def check_corridor(agent: Any, training: Training) -> dict[str, float]:
    """Train in the corridor; compare Q, the policy and its return with the exact ones."""
    trained = train_online(make_lanes(LANES), agent, training, evaluation_env=make_lanes(50))
    exact = solve(agent.discount, getattr(agent, "temperature", 0.0))
    x, action = (part.ravel() for part in np.meshgrid(STATES, ACTIONS, indexing="ij"))
    error = np.asarray(evaluate_critic(trained.state.critic, *to_columns(x, action))) - exact.q(x, action)
    chosen = act(agent, trained.state, to_columns(np.repeat(STATES, DRAWS))[0])[:, 0].reshape(len(STATES), DRAWS)
    missed = np.abs(np.sort(chosen, axis=1) - exact.quantiles(STATES, DRAWS)).mean(axis=1)
    return {
        "error of Q": float(np.sqrt(np.mean(error**2))),
        "bias of Q": float(np.mean(error)),
        "distance of the policy": float(missed.mean()),
        "lost return": exact.mean_return - trained.evaluations[-1]["eval/mean_reward"],
    }


def check_four_goals(agent: Any, training: Training) -> dict[str, float]:
    """Train towards four goals of equal worth; count how often each is reached."""
    trained = train_online(Lockstep.make("MultiGoal", LANES), agent, training)
    episodes = run_episodes(
        lambda observations, step: act(agent, trained.state, observations, step),
        Lockstep.make("MultiGoal", 50), 200, seed=1,
    )  # fmt: skip
    reached = np.array([int(episode["goal"]) for episode in episodes if episode["success"]], np.int64)
    share = np.bincount(reached, minlength=4) / max(len(reached), 1)
    return {
        "failures": 1.0 - len(reached) / len(episodes),
        "rarest goal": float(share.min()),
        # 2 if all four are reached equally often, at most 1.58 if one is never.
        "spread over goals (bits)": float(-np.sum(share * np.log2(np.maximum(share, 1e-9)))),
        "distance": float(np.mean([episode["distance"] for episode in episodes])),
        "lost return": -float(np.mean([episode["return"] for episode in episodes])),
    }


@dataclass(frozen=True)
class Gate:
    """A training, the figures it is judged by, and on which sides they are bounded."""

    agent: Any
    training: Training
    check: Callable[[Any, Training], dict[str, float]]
    below: tuple[str, ...] = ()  # figures that must not be too small
    above: tuple[str, ...] = ()  # figures that must not be too large
    margin: float = MARGIN

    def run(self, seed: int) -> dict[str, float]:
        """The figures of one seed."""
        return self.check(self.agent, replace(self.training, seed=seed))


def _short(steps: int, **options: Any) -> Training:
    return Training(
        total_steps=steps, num_envs=LANES, warmup_steps=400, updates_per_step=1, eval_freq=steps, eval_episodes=100,
        save_freq=0, log_freq=steps, **options,
    )  # fmt: skip


STEPS, GOAL_STEPS = 1600, 3200
SMALL: dict[str, Any] = {"hidden": (32, 32), "batch_size": 32, "learning_rate": 5e-3, "target_rate": 0.02}
STEIN: dict[str, Any] = {"sampler_learning_rate": 3e-3, "fixed_particles": 8, "updated_particles": 8}
IN_THE_CORRIDOR: dict[str, Any] = {
    "training": _short(STEPS), "check": check_corridor, "below": ("bias of Q",),
    "above": ("error of Q", "bias of Q", "distance of the policy", "lost return"),
}  # fmt: skip
GATES: dict[str, Gate] = {
    "sql": Gate(
        SQL(**SMALL, temperature=0.3, discount=0.8, **STEIN, planned_updates=STEPS),
        **IN_THE_CORRIDOR,
    ),
    "ddpg": Gate(DDPG(**SMALL, discount=0.8, actor_learning_rate=1e-3, planned_updates=STEPS), **IN_THE_CORRIDOR),
    "naf": Gate(NAF(**SMALL, discount=0.8, planned_updates=STEPS), **IN_THE_CORRIDOR),
    "goals": Gate(
        SQL(**SMALL, temperature=1.0, discount=0.9, **STEIN, planned_updates=GOAL_STEPS),
        _short(GOAL_STEPS), check_four_goals,
        below=("spread over goals (bits)",), above=("failures", "distance", "lost return"), margin=MARGIN_OF_GOALS,
    ),
}  # fmt: skip


def find_limits(gate: Gate, runs: list[dict[str, float]]) -> dict[str, tuple[float | None, float | None]]:
    """Lowest and highest value of every figure that a training may have, from the first of clean runs."""
    limits = {}
    for name in dict.fromkeys([*gate.below, *gate.above]):
        values = np.array([run[name] for run in runs[:CALIBRATING]])
        low, middle, high = float(values.min()), float(np.median(values)), float(values.max())
        limits[name] = (
            low - gate.margin * (middle - low) if name in gate.below else None,
            high + gate.margin * (high - middle) if name in gate.above else None,
        )
    return limits


def find_alarms(limits: dict[str, tuple[float | None, float | None]], figures: dict[str, float]) -> list[str]:
    """The figures that lie beyond their limits, or are no numbers."""
    alarms = []
    for name, (low, high) in limits.items():
        held = (low is None or figures[name] >= low) and (high is None or figures[name] <= high)
        alarms += [] if held and np.isfinite(figures[name]) else [name]
    return alarms


def read_gates() -> dict[str, Any]:
    """What was measured of the gates, by name."""
    return json.loads((RESULTS / "gates.json").read_text(encoding="utf-8"))["result"]["gates"]


def read_limits(name: str) -> dict[str, tuple[float | None, float | None]]:
    """The limits of a gate, as they were measured."""
    return {figure: (row["low"], row["high"]) for figure, row in read_gates()[name]["figures"].items()}


def summarise(gate: Gate, runs: list[dict[str, float]]) -> dict[str, Any]:
    """The distribution of every figure over clean runs, its limits, and how often those were passed."""
    limits = find_limits(gate, runs)
    figures = {}
    for name, (low, high) in limits.items():
        values = np.array([run[name] for run in runs])
        least, middle, most = (float(value) for value in np.quantile(values, (0.0, 0.5, 1.0)))
        figures[name] = {"least": least, "median": middle, "most": most, "low": low, "high": high}
    alarms = [find_alarms(limits, run) for run in runs]
    return {
        "clean_runs": len(runs), "false_alarms": sum(map(bool, alarms)),
        "fresh_runs": len(runs[CALIBRATING:]), "false_alarms_in_fresh_runs": sum(map(bool, alarms[CALIBRATING:])),
        "figures": figures, "runs": runs,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--gates", nargs="*", choices=GATES, default=list(GATES))
    parser.add_argument("--resume", action="store_true", help="keep the runs that the results file already has")
    options = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in GATES}
    path = RESULTS / "gates.json"
    if options.resume and path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))["result"]["gates"]
        runs |= {name: gate["runs"] for name, gate in held.items()}
    for seed in range(options.seeds):
        for name in options.gates:
            if seed < len(runs[name]):
                continue
            begin = time.process_time()
            runs[name].append(GATES[name].run(seed))
            figures = "  ".join(f"{key} {value:.3f}" for key, value in runs[name][-1].items())
            print(f"{name} {seed}: {figures}  ({time.process_time() - begin:.1f} s of CPU)", flush=True)
            result = {
                "calibrating_runs": CALIBRATING, "margin": {name: gate.margin for name, gate in GATES.items()},
                "gates": {name: summarise(GATES[name], runs[name]) for name in GATES if runs[name]},
            }  # fmt: skip
            seeds = list(range(max(map(len, runs.values()))))
            write_results("gates", result, command="python -m benchmarks.gates", seed=seeds)


if __name__ == "__main__":
    main()
