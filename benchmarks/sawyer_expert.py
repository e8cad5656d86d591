"""What the scripted experts reach on Sawyer's tasks: the proof that each can be solved, and the line above every curve.

    python -m benchmarks.sawyer_expert

Writes results/sawyer_expert.json. The times of a step are of this process's own processor time, physics and all that
comes after it, without the policy.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.machine import write_results
from qompose.envs.gym import TaskVectorEnv
from qompose.paper import fig5
from qompose.tasks import make_task
from qompose.tasks.experts import make_expert
from qompose.tasks.task import Task
from qompose.types import Policy
from qompose.view.console import print_table

LANES = 8
ALONE = "stack, one arm alone"  # instead of as many side by side
PUSHED, FORCED = (fig5.TRIALS[name][2] for name in ("pushed, 10 N", "forced, 0.4 rad"))  # steps
CASES: tuple[tuple[str, str, dict[str, Any], str | None, int | None], ...] = (
    # What, task, its options, the task whose expert plays (None: its own), steps (None: the horizon).
    ("reach", "SawyerReach", {}, None, None),
    ("reach, random targets", "SawyerReachRandom", {}, None, None),
    ("stack", "SawyerStack", {}, None, None),
    (ALONE, "SawyerStack", {}, None, None),
    ("stack, lead-in 1.0 mm", "SawyerStack", {"lead_in": 1.0}, None, None),
    ("stack, lead-in 2.0 mm", "SawyerStack", {"lead_in": 2.0}, None, None),
    ("stack, pushed with 10 N", "SawyerStack", {"push": 10.0}, None, PUSHED),
    ("stack, forced by up to 0.4 rad", "SawyerStack", {"forced": 0.4}, None, FORCED),
    ("avoid", "SawyerAvoid", {}, None, None),
    ("stack and avoid", "SawyerStackAvoid", {}, None, None),
    ("stack and avoid, straight to the goal", "SawyerStackAvoid", {}, "SawyerStack", None),
)


def play(task: Task, policy: Policy, *, episodes: int, steps: int, seed: int, lanes: int) -> dict[str, Any]:
    """The figures of `episodes` episodes, played `lanes` at a time."""
    env = TaskVectorEnv(task, lanes, max_episode_steps=steps)
    found: dict[str, list[float]] = {name: [] for name in ("success", "seconds", "return", "distance", "collided")}
    times = []
    for batch in range(-(-episodes // lanes)):
        observations, _ = env.reset(seed=seed + batch)
        returns, first = np.zeros(lanes), np.full(lanes, np.inf)
        for step in range(steps):
            actions = policy(observations, step)
            begin = time.process_time()
            observations, rewards, _, truncated, info = env.step(actions)
            times.append((time.process_time() - begin) / lanes)
            if truncated.any() != (step == steps - 1):
                raise RuntimeError(f"an episode of {task.name} was cut at step {step}")
            last = info["final_info"] if truncated.all() else info
            returns += rewards
            first[np.isinf(first) & last["success"]] = (step + 1) * task.control_period
        found["success"] += last["success"].tolist()
        found["collided"] += last.get("collided", np.zeros(lanes)).tolist()
        found["distance"] += last["distance"].tolist()
        found["seconds"] += first.tolist()
        found["return"] += returns.tolist()
    solved = [second for second in found["seconds"][:episodes] if np.isfinite(second)]
    return {
        "episodes": episodes,
        "success": float(np.mean(found["success"][:episodes])),
        "collided": float(np.mean(found["collided"][:episodes])),
        "seconds_median": float(np.median(solved)) if solved else None,
        "seconds_most": max(solved) if solved else None,
        "return_mean": float(np.mean(found["return"][:episodes])),
        "return_std": float(np.std(found["return"][:episodes])),
        "final_distance_mean": float(np.mean(found["distance"][:episodes])),
        "milliseconds_per_step": {
            "median": 1e3 * float(np.median(times)),
            "95th": 1e3 * float(np.quantile(times, 0.95)),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1000, help="of the first episodes; default: 1000, as policies")
    arguments = parser.parse_args()
    rows = []
    for what, name, options, player, steps in CASES:
        task = make_task(name, **options)
        expert = make_expert(make_task(player) if player else task)
        figures = play(
            task, expert, episodes=arguments.episodes, steps=steps or task.horizon, seed=arguments.seed,
            lanes=1 if what == ALONE else LANES,
        )  # fmt: skip
        rows.append({"what": what, "task": name, "options": options, "expert": player or name, **figures})
        print(f"{what}: {figures['success']:.2f}", flush=True)
    print_table(
        f"scripted experts, {arguments.episodes} episodes each",
        ("task", "solved", "touched the tower", "after (median, most)", "return", "ms per step"),
        [
            (
                row["what"], f"{row['success']:.2f}", f"{row['collided']:.2f}",
                f"{row['seconds_median']:.2f} s, {row['seconds_most']:.2f} s" if row["seconds_median"] else "",
                f"{row['return_mean']:.1f} ± {row['return_std']:.1f}", f"{row['milliseconds_per_step']['median']:.2f}",
            )
            for row in rows
        ],
    )  # fmt: skip
    command = f"python -m benchmarks.sawyer_expert --episodes {arguments.episodes}"
    write_results("sawyer_expert", {"lanes": LANES, "rows": rows}, command=command, seed=arguments.seed)


if __name__ == "__main__":
    main()
