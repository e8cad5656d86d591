"""How exact is the learned correction? On a line whose correction and regrets are known exactly.

    python -m benchmarks.correction [--seeds 5]

C for equal weights; with critics that are spoilt on purpose, blind to their Bellman residuals and with them; and C for
all weights at once, at some. Errors are root mean squares relative to C, weighted by the visits of the exactly
corrected policy; regrets are means over all states, under the true rewards. The skills' networks stay; each seed has
replays, draws and first weights of its own. Writes results/correction.json.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import line
from benchmarks.machine import write_results
from benchmarks.options import read_options
from qompose.skill.algebra import unite_replays
from qompose.skill.artifact import Skill
from qompose.training.correct import Correction, learn_correction
from qompose.training.reweigh import learn_corrections

TEMPERATURES, EQUAL = (0.1, 0.05), (0.5, 0.5)
WEIGHTS = ((0.2, 0.8), (0.5, 0.5), (0.8, 0.2), (1.4, 0.6))


def compare(exact: line.Exact, learned: Any) -> dict[str, float]:
    """Error of a learned C, and the regret of the sum without and with it."""
    found = line.on_grid(learned)
    visits = exact.visits(exact.total - exact.correction)
    square = np.sum(visits * (found - exact.correction) ** 2) / np.sum(visits * exact.correction**2)
    regrets = {"sum": exact.total, "corrected": exact.total - found}
    return {"error": float(square**0.5), **{name: float(exact.regret(q).mean()) for name, q in regrets.items()}}


def spoil(skills: list[Skill]) -> list[Skill]:
    """The skills with tilted critics, which prefer other actions and places than they should."""
    spoilt = []
    for skill, sign in zip(skills, (1.0, -1.0), strict=True):
        arrays = dict(skill.critic.arrays)
        arrays["weight_out"] = arrays["weight_out"] * np.float32(1.0 + 0.2 * sign)
        spoilt.append(replace(skill, critic=skill.critic._replace(arrays=arrays)))
    return spoilt


def correct_spoilt(exact: line.Exact, options: Correction) -> dict[str, float]:
    """Regrets with spoilt critics: of the sum, corrected blindly, and with the critics' residuals."""
    skills, data = spoil(exact.skills), unite_replays(exact.skills)
    total = sum(w * line.on_grid(skill) for w, skill in zip(exact.weights, skills, strict=True))
    rewards = [line.reward_at(skill.name, data) for skill in skills]
    regrets = {"sum": float(exact.regret(total).mean())}
    for name, given in (("blind", None), ("residuals", rewards)):
        learned = learn_correction(skills, exact.weights, exact.alpha, data, options, rewards=given)
        regrets[name] = float(exact.regret(total - line.on_grid(learned)).mean())
    return regrets


def correct_equal(exact: line.Exact, options: Correction) -> dict[str, float]:
    """`compare` of the C of the problem's own weights."""
    data = unite_replays(exact.skills)
    return compare(exact, learn_correction(exact.skills, exact.weights, exact.alpha, data, options))


def correct_all(exact: line.Exact, options: Correction) -> list[dict[str, Any]]:
    """`compare` of the C of all weights, at each of WEIGHTS."""
    learned = learn_corrections(*exact.skills, correction=options)
    problems = [line.solve_for(exact.skills, weights) for weights in WEIGHTS]
    return [
        {"weights": one.weights, **compare(one, learned.at(one.skills, one.weights, one.alpha))} for one in problems
    ]


def measure(exact: line.Exact, seed: int) -> dict[str, Any]:
    """All of it from one seed."""
    exact, options = replace(exact, skills=line.with_replays(exact.skills, seed)), Correction(seed=seed)
    return {
        "equal_weights": correct_equal(exact, options), "spoilt_critics": correct_spoilt(exact, options),
        "all_weights": correct_all(exact, options),
    }  # fmt: skip


def main() -> None:
    arguments = read_options(__doc__, seeds=5)
    exact = line.solve_exactly(TEMPERATURES, EQUAL)
    rows = []
    for seed in range(arguments.seeds):
        rows.append(measure(exact, seed))
        print(seed, rows[-1], flush=True)
    result = {"rows": rows, "bar": {"error": 0.1}}
    command = f"python -m benchmarks.correction --seeds {arguments.seeds}"
    write_results("correction", result, command=command, seed=list(range(arguments.seeds)))


if __name__ == "__main__":
    main()
