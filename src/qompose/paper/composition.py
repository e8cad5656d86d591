"""A benchmark of composition: what each operator loses, on finite problems over temperatures, and on learned skills.

The finite part knows no network and no sampling: each figure is exact for its problem, only the problems are drawn. The
learned part is in `operators`. Four finite families, each with two or three skills of equal temperature and weights:

lines: go to a column, to a row, to a diagonal: the skills fit together · modes: every skill prefers a far place of its
own, all tolerate a near one · opposite: places far apart and nothing in common · random: dense random transitions and
rewards. The first three are rooms of SIDE² cells, four moves and staying, one move in ten goes astray.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qompose.paper import operators
from qompose.paper.study import Study
from qompose.skill.expression import PRICE, WIDTH
from qompose.soft import finite
from qompose.soft.compose import combine_values, mix_values, prefer_values
from qompose.view.charts import draw_curves
from qompose.view.console import print_table

SIDE, ACTIONS, DISCOUNT, ASTRAY = 7, 5, 0.9, 0.1
PROBLEMS = 10  # of each family, for each seed
TEMPERATURES = (0.03, 0.1, 0.3, 1.0, 3.0)
FAMILIES = ("lines", "modes", "opposite", "random")
SKILLS = (2, 3)
SLACK = 0.5
GOOD = 0.9  # a state is a success if its best composed reward is this share of the way from the least to the highest
OPERATORS = ("mean", "half-corrected", "corrected", "or", "gpi", "prefer", "constituents", "from scratch")


def room() -> np.ndarray:
    """Discount times transitions of a room with walls: (S, A, S)."""
    moves = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
    place = np.stack(np.divmod(np.arange(SIDE**2), SIDE), axis=-1)
    after = np.clip(place[:, None] + moves, 0, SIDE - 1) @ np.array([SIDE, 1])
    chosen = np.zeros((SIDE**2, ACTIONS, SIDE**2))
    np.put_along_axis(chosen, after[..., None], 1.0, axis=-1)
    return DISCOUNT * ((1.0 - ASTRAY) * chosen + ASTRAY * chosen.mean(axis=1, keepdims=True))


def draw_problem(family: str, skills: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (K, S, A) and kernel (S, A, S) of one problem."""
    states = SIDE**2
    if family == "random":
        kernel = DISCOUNT * rng.dirichlet(np.full(states, 0.1), (states, ACTIONS))
        return rng.standard_normal((skills, states, ACTIONS)), kernel
    place = np.stack(np.divmod(np.arange(states), SIDE), axis=-1).astype(float)
    if family == "lines":
        goal = rng.integers(SIDE, size=2)
        off = np.stack([place[:, 0] - goal[0], place[:, 1] - goal[1], (place - goal) @ np.array([0.5, -0.5])])[:skills]
        reward = -np.abs(off) / SIDE
    else:
        corners = np.array([(0, 0), (0, SIDE - 1), (SIDE - 1, 0), (SIDE - 1, SIDE - 1)], float)
        own = rng.permutation(corners)[:skills]
        reward = _peak(place, own)
        if family == "modes":
            near = 0.5 * (SIDE - 1) + rng.integers(-1, 2, size=2)
            reward = np.maximum(reward, 0.8 * _peak(place, near[None]))
    return np.repeat(reward[:, :, None], ACTIONS, axis=2), room()


def _peak(place: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(S, 2), (K, 2) -> (K, S)"""
    return np.exp(-0.5 * np.sum((place - at[:, None]) ** 2, axis=-1))


def measure(reward: np.ndarray, kernel: np.ndarray, alpha: float) -> dict[str, tuple[float, float]]:
    """Operator -> (loss, success) on the composed task, exact. reward: (K, S, A), kernel: (S, A, S)

    loss: the soft regret as a share of what the uniform policy loses, mean over states. success: how often the state is
    a good one, discounted, from a state chosen at random.
    """
    count = len(reward)
    weights, temperatures = np.full(count, 1.0 / count), np.full(count, alpha)
    q = finite.optimal_q(reward, kernel[None], temperatures)
    value = finite.state_value(q, temperatures)
    composed = finite.combine(weights, reward)
    own = finite.boltzmann(q, temperatures)
    total = combine_values(list(q), list(weights))
    gap = finite.correction(q, value, weights, kernel, alpha)
    best = finite.optimal_q(composed, kernel, alpha)
    preferred = q[-1]
    for high in q[-2::-1]:
        preferred = prefer_values(
            high, high.max(axis=-1, keepdims=True), preferred, SLACK, WIDTH * SLACK, PRICE * WIDTH * SLACK
        )
    energies = {
        "mean": total, "half-corrected": total - 0.5 * gap, "corrected": total - gap,
        "or": mix_values(list(q), list(weights), alpha),
        "gpi": finite.evaluate(composed, kernel[None], own, temperatures).max(axis=0),
        "prefer": preferred, "from scratch": best,
    }  # fmt: skip
    policies = {name: finite.boltzmann(energy, alpha)[None] for name, energy in energies.items()}
    policies["constituents"] = own  # each of them, and then the mean of their figures
    top = composed.max(axis=-1)
    good = (top >= top.min() + GOOD * (top.max() - top.min())).astype(float)

    def worth(policy: np.ndarray, reward: np.ndarray, temperature: float) -> float:
        return float(finite.accumulate(finite.policy_value(reward, policy, temperature), kernel, policy).mean())

    optimal = worth(policies["from scratch"][0], composed, alpha)
    span = optimal - worth(np.ones_like(composed), composed, alpha)
    visits = np.repeat(good[:, None], ACTIONS, axis=1)
    return {
        name: (
            float(np.mean([(optimal - worth(p, composed, alpha)) / span for p in each])),
            float(np.mean([(1.0 - DISCOUNT) * worth(p, visits, 0.0) for p in each])),
        )
        for name, each in policies.items()
    }  # fmt: skip


def reproduce(study: Study) -> dict[str, Any]:
    """Solve and measure everything; write composition.json and two pictures; return what is in the file."""
    study.open()
    rows = []
    for family in FAMILIES:
        for skills in SKILLS:
            problems = [
                draw_problem(family, skills, np.random.default_rng([seed, index, FAMILIES.index(family), skills]))
                for seed in range(study.seeds) for index in range(PROBLEMS)
            ]  # fmt: skip
            for alpha in TEMPERATURES:
                found = [measure(*problem, alpha) for problem in problems]
                rows += [
                    {"family": family, "skills": skills, "temperature": alpha, "operator": name,
                     "loss": operators.interval_of([each[name][0] for each in found]),
                     "success": operators.interval_of([each[name][1] for each in found])}
                    for name in OPERATORS
                ]  # fmt: skip
    panels = {
        f"what the mean of {skills} Q-functions loses": {
            family: [
                [(row["temperature"], row["loss"]["mean"]) for row in rows
                 if (row["family"], row["skills"], row["operator"]) == (family, skills, "mean")]
            ]
            for family in FAMILIES
        }
        for skills in SKILLS
    }  # fmt: skip
    picture = study.folder / "composition_temperature.png"
    labels = ("temperature", "share of the soft value")
    draw_curves(picture, panels, labels=labels, logarithmic="x")
    other = study.folder / "composition_operators.png"
    learned, systems = operators.reproduce(study, tuple(operators.PROBLEMS), other)
    result = {"rows": rows, "problems": study.seeds * PROBLEMS, "learned": learned}
    path = study.write("composition", result, systems)
    return {**result, "pictures": [str(picture), str(other)], "file": str(path)}


def print_report(result: dict[str, Any]) -> None:
    """The losses, a line for each operator and number of skills; temperatures across."""
    for family in FAMILIES:
        rows = [row for row in result["rows"] if row["family"] == family]
        table = []
        for skills in SKILLS:
            for name in OPERATORS:
                cells = [row["loss"] for row in rows if (row["skills"], row["operator"]) == (skills, name)]
                table.append((f"{name}, {skills}", *(f"{abs(cell['mean']):.3f}" for cell in cells)))
        title = f"{family}: share of the soft value that is lost, {result['problems']} problems, by temperature"
        print_table(title, ("operator, skills", *map(str, TEMPERATURES)), table)
    print("means over problems; their 95 % intervals and the successes are in the file")
    operators.print_report(result["learned"])
