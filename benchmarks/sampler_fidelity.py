"""How faithfully actions follow exp(Q/α) when Q is known: the Stein sampler alone, and with importance resampling.

    python -m benchmarks.sampler_fidelity [--quick] [--seed 0]

Only the sampler is trained (SQL.improve_policy, default hyperparameters, temperature 1). Every sample is an action of
its own. Writes results/sampler_fidelity.json and .png.

Bars: raw total variation ≤ 0.06 on the overlapping modes; resampled ≤ 0.05 and mode masses within 5 points everywhere.
The floor is what exact samples of the same number would show.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from matplotlib.figure import Figure

from benchmarks.machine import RESULTS, write_results
from benchmarks.options import read_options
from benchmarks.targets import TARGETS, Exact, Target, energy_distance, histogram, solve, total_variation
from qompose.agents.sql import SQL
from qompose.nets import Sampler
from qompose.soft.value import mixture_proposal
from qompose.view.console import print_table

UPDATES = 10_000
SAMPLES = 100_000
CANDIDATES = 256
PARTICLES = 64
SMOOTHING = 0.3
OBSERVATION = jnp.zeros(1)
RAW_BAR, RESAMPLED_BAR, MASS_BAR = 0.06, 0.05, 0.05


def train_sampler(target: Target, agent: SQL, updates: int, *, key: Array) -> Sampler:
    """The sampler after so many Stein steps towards the target."""
    init_key, key = jax.random.split(key)
    state = agent.init(1, target.dimension, key=init_key)
    observations = jnp.tile(OBSERVATION, (agent.batch_size, 1))

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        sampler, optimiser, _ = agent.improve_policy(
            lambda observation, action: agent.temperature * target.log_density(action), *carry, observations, key=key
        )
        return (sampler, optimiser), None

    start = (state.sampler, state.sampler_optimiser)
    (sampler, _), _ = jax.jit(partial(lax.scan, step))(start, jax.random.split(key, updates))
    return sampler


@partial(jax.jit, static_argnums=2)
def draw_raw(sampler: Sampler, key: Array, count: int) -> Array:
    """Actions of the sampler, as it acts by itself."""
    return jnp.tanh(sampler(OBSERVATION, jax.random.normal(key, (count, sampler.network.bias_out.shape[0]))))


@partial(jax.jit, static_argnums=(0, 3))
def draw_resampled(target: Target, sampler: Sampler, key: Array, count: int) -> tuple[Array, Array]:
    """Independent acts: candidates from smoothed fresh particles and uniform, one drawn by its weight exp(Q/α)/q."""
    fit_key, noise_key, uniform_key, choice_key = jax.random.split(key, 4)
    shape = (count, CANDIDATES // 2, target.dimension)
    particles = sampler(OBSERVATION, jax.random.normal(fit_key, (count, PARTICLES, target.dimension)))
    uniform = jax.random.uniform(uniform_key, shape, minval=-1.0 + 1e-6, maxval=1.0 - 1e-6)
    drawn, log_density = mixture_proposal(particles, jax.random.normal(noise_key, shape), uniform, SMOOTHING)
    candidates = jnp.tanh(drawn)
    log_weight = target.log_density(candidates) - log_density
    chosen = jnp.argmax(log_weight + jax.random.gumbel(choice_key, log_weight.shape), axis=-1)
    weight = jax.nn.softmax(log_weight, axis=-1)
    actions = jnp.take_along_axis(candidates, chosen[:, None, None], axis=1)[:, 0]
    return actions, 1.0 / jnp.sum(weight**2, axis=-1)


def compare(exact: Exact, actions: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Distance to the target, and the largest error of a mode's mass."""
    masses = np.bincount(exact.target.mode_of(actions), minlength=len(exact.mode_masses())) / len(actions)
    if exact.target.dimension < 3:
        distance = total_variation(histogram(actions), exact.histogram())
    else:
        distance = energy_distance(actions, reference)
    error = float(np.abs(masses - exact.mode_masses()).max())
    return {"distance": distance, "mode_masses": masses.round(4).tolist(), "mass_error": error}


def measure(target: Target, updates: int, samples: int, seed: int) -> tuple[dict[str, Any], list[np.ndarray]]:
    """One case: its figures, and its samples (exact, raw, resampled)."""
    generator = np.random.default_rng(seed)
    train_key, raw_key, act_key = jax.random.split(jax.random.key(seed), 3)
    exact = solve(target)
    reference, other = exact.draw(generator, samples), exact.draw(generator, samples)
    begin = time.perf_counter()
    sampler = train_sampler(target, SQL(temperature=1.0), updates, key=train_key)
    raw = np.asarray(draw_raw(sampler, raw_key, samples))
    seconds = time.perf_counter() - begin
    parts = [draw_resampled(target, sampler, key, 500) for key in jax.random.split(act_key, -(-samples // 500))]
    resampled = np.concatenate([np.asarray(actions) for actions, _ in parts])[:samples]
    figures = {
        "target": target.name, "dimension": target.dimension,
        "measure": "total variation, 40 bins per axis" if target.dimension < 3 else "energy distance",
        "mode_masses": exact.mode_masses().round(4).tolist(),
        "floor": compare(exact, other, reference), "raw": compare(exact, raw, reference),
        "resampled": compare(exact, resampled, reference),
        "effective_candidates": float(np.mean([np.mean(size) for _, size in parts])), "training_seconds": seconds,
    }  # fmt: skip
    return figures, [reference, raw, resampled]


def judge(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """The bars, each met or not."""
    return {
        "raw ≤ 0.06 on overlapping modes": rows[0]["raw"]["distance"] <= RAW_BAR,
        "resampled ≤ 0.05 everywhere": all(row["resampled"]["distance"] <= RESAMPLED_BAR for row in rows),
        "resampled mode masses within 5 points": all(row["resampled"]["mass_error"] <= MASS_BAR for row in rows),
    }


def draw_picture(samples: list[list[np.ndarray]]) -> Figure:
    """Target, raw and resampled below each other; of three dimensions the first two."""
    figure = Figure(figsize=(3 * len(samples), 8), layout="constrained")
    axes = figure.subplots(3, len(samples), squeeze=False)
    for column, (target, kinds) in enumerate(zip(TARGETS, samples, strict=True)):
        for row, (kind, actions) in enumerate(zip(("target", "raw", "resampled"), kinds, strict=True)):
            axis = axes[row, column]
            axis.set_title(f"{target.name}: {kind}", fontsize=9)
            axis.set_xlim(-1, 1)
            if target.dimension == 1:
                axis.hist(actions[:, 0], bins=80, range=(-1, 1), density=True, color="#336699")
                axis.set_ylim(0, 1.2 * np.histogram(kinds[0], 80, (-1, 1), density=True)[0].max())
            else:
                axis.hist2d(actions[:, 0], actions[:, 1], bins=80, range=((-1, 1), (-1, 1)), cmap="viridis")
                axis.set_aspect("equal")
    return figure


def main() -> None:
    arguments = read_options(__doc__, seed=0, quick=False)  # quick: the machinery, not the figures
    updates, samples = (200, 2000) if arguments.quick else (UPDATES, SAMPLES)
    rows, pictures = [], []
    for target in TARGETS:
        figures, drawn = measure(target, updates, samples, arguments.seed)
        rows.append(figures)
        pictures.append(drawn)
        print(f"measured {target.name}", flush=True)
    bars = judge(rows)
    print_table(
        f"{samples} actions: distance to the target (total variation; 3-D: energy distance), largest error of a mode",
        ("target", "floor", "raw", "mass", "resampled", "mass", "of 256"),
        [
            (
                row["target"], f"{row['floor']['distance']:.4f}", f"{row['raw']['distance']:.4f}",
                f"{row['raw']['mass_error']:.3f}", f"{row['resampled']['distance']:.4f}",
                f"{row['resampled']['mass_error']:.3f}", f"{row['effective_candidates']:.0f}",
            )
            for row in rows
        ],
    )  # fmt: skip
    if not arguments.quick:
        for bar, met in bars.items():
            print(f"{'met   ' if met else 'MISSED'} {bar}")
        settings = {
            "updates": updates, "samples": samples, "candidates": CANDIDATES, "particles": PARTICLES,
            "smoothing": SMOOTHING, "fixed_particles": SQL().fixed_particles,
            "updated_particles": SQL().updated_particles,
        }  # fmt: skip
        result = {"bars": bars, "settings": settings, "rows": rows}
        command = f"python -m benchmarks.sampler_fidelity --seed {arguments.seed}"
        write_results("sampler_fidelity", result, command=command, seed=arguments.seed)
        draw_picture(pictures).savefig(RESULTS / "sampler_fidelity.png", dpi=60)


if __name__ == "__main__":
    main()
