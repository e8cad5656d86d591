"""Write docs/measurements.md from results/: the page holds what the files hold, and nothing else.

python -m benchmarks.measurements
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fused import bars_of, extraction_of
from benchmarks.machine import RESULTS
from benchmarks.ranking_pusher import BEGINS
from benchmarks.refit import ALL, GENTLE, trained_on
from benchmarks.refit import RATES as REFIT_RATES
from benchmarks.update_speed import PARTS
from benchmarks.variants import QUESTIONS, table_rows
from benchmarks.wall_clock import median_seconds
from qompose.paper.operators import interval_of, spell
from qompose.paper.study import CONSTITUENTS, CORNERS, EXTRACTION_STEPS

PAGE = RESULTS.parent / "docs" / "measurements.md"
HEAD = """# Measurements

Made from the files in `results/` by `python -m benchmarks.measurements`; a test holds it to them. Each file has the
command, seed, versions, machine and commit. `make bench` and `make
reliability` run most of those of the library again, `qompose reproduce` those of the paper, in hours on two cores; not
among them, with commands of their own: corner_extraction, refit, ranking_pusher, variants, tower, fine_tune,
wall_clock, scaling, fused, peers and yardsticks.
"""


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def steps_of(steps: Sequence[int | None]) -> str:
    return " ".join("never" if step is None else str(step) for step in steps)


def bold(text: str, missed: bool) -> str:
    """A figure, bold where a bar is missed."""
    return f"**{text}**" if missed else text


def bar_list(result: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {'met' if value else '**missed**'}" for name, value in result["bars"].items())


def spell_bars(bars: Mapping[str, bool]) -> str:
    return bar_list({"bars": bars})


def pusher(result: dict[str, Any]) -> str:
    rows = [
        (
            row["task"], row["how"], row["mode"], f"{row['mean']:.3f} ± {row['std_over_seeds']:.3f}",
            " ".join(f"{mean:.3f}" for mean in row["seeds"]), f"≤ {row['bar']:.2f}",
            f"{row['seeds_at_bar']} of {len(row['seeds'])}", f"{row['paper'][0]:.2f} ± {row['paper'][1]:.2f}",
        )
        for row in result["summary"]
    ]  # fmt: skip
    header = ("task", "policy", "acting", "mean ± std over seeds", "seeds", "bar", "met by", "paper")
    seconds = result["times"]["extraction_seconds"]
    fastest, slowest = f"{min(seconds):.1f}", f"{max(seconds):.1f}"
    acting = {how: times["p50"] for how, times in result["times"]["milliseconds_per_action"].items()}
    return f"""## The pusher

Final distance of the puck to its goal (m), mean of {result["episodes"]} episodes, {result["total_steps"]} environment
steps per skill. `sample` is the stochastic policy, `resample` importance resampling on Q_Σ, `best` the candidate of
highest Q. `extracted`: a sampler for Q_Σ; `direct`: acting on Q_Σ itself; `informed`: PushBottom was learned once
more, with what PushLeft has seen beside its own experience (`--experience`), and then composed and extracted.

{table(header, rows)}

Extraction took {fastest} to {slowest} s (bar: 20 s). One action took {acting["extracted"]:.2f} ms (median)
with the extracted sampler and {acting["direct"]:.2f} ms directly on Q_Σ (bar: 5 ms).
"""


def reach(result: dict[str, Any]) -> str:
    rows = [(row["where"], f"{row['metres']:.3f}") for row in result["rows"]]
    return f"""## How near the corner the arm can hold the puck

From the kinematics and the joint limits alone: the least distance (m) from (−1, −1) to a puck at rest against the
fork. A puck that is flicked coasts further.

{table(("the puck lies", "distance"), rows)}
"""


def sawyer_expert(result: dict[str, Any]) -> str:
    rows = [
        (
            row["what"], f"{row['success']:.2f}", f"{row['collided']:.2f}",
            f"{row['seconds_median']:.2f} / {row['seconds_most']:.2f}" if row["seconds_median"] else "never",
            f"{row['return_mean']:.1f} ± {row['return_std']:.1f}",
            f"{row['milliseconds_per_step']['median']:.2f} / {row['milliseconds_per_step']['95th']:.2f}",
        )
        for row in result["rows"]
    ]  # fmt: skip
    header = (
        "task", "solved", "touched the tower", "after (s, median / most)", "return", "ms per step (median / 95 %)",
    )  # fmt: skip
    return f"""## Sawyer's scripted experts

{result["rows"][0]["episodes"]} episodes each, others than those on which the experts were tuned.
`solved` is the success test of the task at the end of the episode; `after` is when it was first passed, from the start,
which may be before the disturbance. A step is one action of one of {result["lanes"]} lanes, or of one alone: 25 steps
of the simulator, observation, reward and tests, without the policy, in processor time of one core.

{table(header, rows)}

{spell_bars(sawyer_expert_bars(result["rows"]))}
"""


def sawyer_expert_bars(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    slowest = max(rows, key=lambda row: row["milliseconds_per_step"]["median"])
    most = slowest["milliseconds_per_step"]["median"]
    return {f"a control step in at most 1.0 ms (slowest: {slowest['what']}, {most:.2f} ms in the median)": most <= 1.0}


def sampler_fidelity(result: dict[str, Any]) -> str:
    rows = [
        (
            row["target"], row["dimension"], row["measure"].split(",")[0], f"{row['floor']['distance']:.4f}",
            f"{row['raw']['distance']:.3f}", f"{row['resampled']['distance']:.3f}",
            f"{100 * row['resampled']['mass_error']:.1f}",
        )
        for row in result["rows"]
    ]  # fmt: skip
    header = ("target", "d", "measure", "exact samples", "sampler", "resampled", "error of mode masses (points)")
    bars, settings = bar_list(result), result["settings"]
    return f"""## Sampler fidelity

A sampler trained on a fixed Q, against quadrature of exp(Q/α); {settings["samples"]} samples. The amortised Stein
sampler alone finds one of several separated modes; importance resampling among {settings["candidates"]} candidates
repairs that.

{table(header, rows)}

{bars}

![exact, sampler and resampled](../results/sampler_fidelity.png)
"""


def soft_value(result: dict[str, Any]) -> str:
    names = list(result["rows"][0]["proposals"])
    rows = [
        (row["target"], row["policy"], row["particles"], *(f"{row['proposals'][n]['bias']:+.3f}" for n in names))
        for row in result["rows"]
    ]
    bars = bar_list(result)
    return f"""## Soft value

Mean of {result["estimates"]} estimates minus quadrature, in units of α. `8, h 1`: mixture proposal, a Gaussian fitted
to 8 particles; the policy's particles come from exp(Q/α) itself or from a trained sampler, which may have lost modes.

{table(("Q", "policy", "K", *names), rows)}

{bars}
"""


def update_speed(result: dict[str, Any]) -> str:
    rows = [
        (
            cores, row["algorithm"], row["batch"], row["particles"], f"{row['updates_per_second']:.0f}",
            f"{row['gigaflop_per_second']:.0f}", f"{100 * row['share_of_matrix_rate']:.0f} %",
            *(f"{row['milliseconds'][name]:.2f}" if name in row["milliseconds"] else "" for name in PARTS),
        )
        for cores, found in result["cores"].items() for row in found["rows"]
    ]  # fmt: skip
    header = (
        *("cores", "algorithm", "batch", "particles", "updates/s", "GFLOP/s", "of the matrix rate"),
        *(f"{name} (ms)" for name in PARTS),
    )
    environments = result["environments"]
    large = [row for row in result["cores"]["1"]["rows"] if row["batch"] == 128]
    share = large[0]["share_of_matrix_rate"]
    theirs = 0.4 * large[0]["updates_per_second"] / share
    faster = ", ".join(f"{row['updates_per_second'] / theirs:.1f} with {row['particles']}" for row in large)
    return f"""## Speed of updates and environments

One update, two layers of 128; particles are those of the value and of the Stein step. Counted are the operations of
the matrix products that the equations need; the matrix rate is the best that the same cores reach on such products.
What is left over goes to what is no matrix product: layer norm, ReLU and their gradients, Stein kernel, random numbers,
Adam.

{table(header, rows)}

The bar is 60 % of the matrix rate at batch 128 on one core: {"met" if share >= 0.6 else "**missed**"}; but see
[another processor](#speed-of-updates-on-another-processor). What was tried for it: the median by counting, Adam on one
vector, and a state that is one vector between compiled calls; for fewer particles see [below](#fewer-particles). A
second core helps little: products of this size are hardly worth sharing, so that each core trains a run of its own. A
second bar is twice the updates per second of the code of the method's authors, with
as many particles as suffice. That code is of TensorFlow 1, which no Python that this package supports can install;
taken to work at 40 % of the matrix rate with 16 + 16 particles, as it was said to elsewhere, it would make
{theirs:.0f} updates per second here at batch 128, and the ratio would be {faster} particles.

{environments["lanes"]} lanes of PushLeft in lock-step: {environments["vector"]:.0f} environment steps per second,
{environments["ratio"]:.2f} times a plain loop over `gymnasium.make` (median of alternated pairs).
"""


def update_speed_intel(result: dict[str, Any]) -> str:
    found = result["cores"]["1"]
    rows = [
        (
            row["algorithm"], row["batch"], row["particles"], f"{row['updates_per_second']:.0f}",
            f"{100 * row['share_of_matrix_rate']:.0f} %",
        )
        for row in found["rows"]
    ]  # fmt: skip
    share = next(row["share_of_matrix_rate"] for row in found["rows"] if row["batch"] == 128)
    return f"""## Speed of updates on another processor

The same on one core with a higher matrix rate ({max(found["matrix_rates"].values()):.0f} GFLOP/s), at an earlier
commit, before a state was one vector between the calls. The bar of 60 % is there
{"met" if share >= 0.6 else "**missed**"}.

{table(("algorithm", "batch", "particles", "updates/s", "of the matrix rate"), rows)}
"""


def compare_variants(name: str, result: dict[str, Any]) -> str:
    """The table of one question of `benchmarks.variants`, its first rows those of the paper's table as it is today."""
    rows = [
        (
            row["variant"], row["task"], row["mode"], f"{mean_of(row['seeds']):.3f}",
            " ".join(f"{mean:.3f}" for mean in row["seeds"]),
        )
        for row in (*table_rows(name, len(result["rows"][0]["seeds"])), *result["rows"])
    ]  # fmt: skip
    return table(("trained", "task", "acting", "mean", "seeds"), rows)


def variants_particles(result: dict[str, Any]) -> str:
    return f"""## Fewer particles

Lines learned with a quarter of the particles, and corners composed of them, extracted with all: final distance of the
puck to its goal (m), 100 episodes of each seed. Table I has 16 for V, 8 that shape its proposal and 8 + 8 of Stein; a
quarter of them are 4, 2 and 2 + 2. Half of them: [outside yardsticks](yardsticks.md#what-came-of-it).

{compare_variants("particles", result)}

![distance against environment steps](variants_particles.png)
"""


def variants_naf(result: dict[str, Any]) -> str:
    return f"""## NAF, trained otherwise

Two lines whose figure in Table I is above the paper's (left 0.06, middle 0.02): final distance of the puck (m), 100
episodes of each seed. In the table it has {result["steps"]} steps, two updates a step and noise of 0.2.

{compare_variants("naf", result)}

![distance against environment steps](variants_naf.png)
"""


def variants_reach(result: dict[str, Any]) -> str:
    near = [f"{row['variant']} (`{row['mode']}`)" for row in result["rows"] if max(row["seeds"]) <= 0.02]
    return f"""## Reaching targets that differ, trained otherwise

Final distance of Sawyer's hand to its target (m), 100 episodes of each seed, after {result["steps"]} steps. Fig. 4 has
a temperature of 0.1, four updates a step and batches of 64.

{compare_variants("reach", result)}

Of the others, at most 20 mm in every seed: {", ".join(near) or "none"}.

![distance against environment steps](variants_reach.png)
"""


def variants_corner(result: dict[str, Any]) -> str:
    return f"""## The corner, trained otherwise

Bottom-left, which Table I trains for {result["steps"]} steps: final distance of the puck (m), 100 episodes of each
seed.

{compare_variants("corner", result)}

![distance against environment steps](variants_corner.png)
"""


def variants_lines(result: dict[str, Any]) -> str:
    return f"""## The corner from skills that share experience

Left learns as in Table I, {result["steps"]} steps; bottom too, but from what left of the same seed has seen as well,
with its own rewards. Bottom-left is composed of the two as there. Final distance of the puck (m), 100 episodes of each
seed.

{compare_variants("lines", result)}

![distance against environment steps](variants_lines.png)
"""


def act_speed(result: dict[str, Any]) -> str:
    rows = [
        (
            row["skill"], row["mode"], f"{row['p50']:.0f}", f"{row['p99']:.0f}",
            f"{row['median_block']['p50']:.0f} / {row['median_block']['p99']:.0f}",
        )
        for row in result["rows"]
    ]  # fmt: skip
    apart = [
        (
            found["skill"], found["states"], f"{found['largest']:.1e}", f"{100 * found['share_within']:.1f} %",
            *(f"{found['from_exact'][name]:.1e}" for name in ("numpy", "jax")),
        )
        for found in result["differences_from_jax"]
    ]  # fmt: skip
    limits = result["limits"]
    return f"""## Acting on one observation

`skill.act` in NumPy, two layers of 128, one core, in microseconds: p50 and p99 of the quietest of many blocks, and the
medians over the blocks, in which other work on the machine shows. Bars, for `sample` of a trained skill: p50
≤ {limits["p50"]:.0f}, p99 ≤ {limits["p99"]:.0f}, and actions within {limits["difference"]:g} of JAX's.

{table(("skill", "acting", "p50", "p99", "median block"), rows)}

Differences from JAX's actions, which lie in [-1, 1], in states drawn from each replay; and how far either is from the
same sampler in double precision, at most. Where they are larger than the bar, rounding in float32 does not let JAX
itself be that near to the exact action.

{table(("skill", "states", "largest", f"within {limits['difference']:g}", "NumPy from exact", "JAX from exact"), apart)}

{bar_list(result)}
"""


def yardsticks(
    result: dict[str, Any], title: str = "Outside yardsticks", picture: str = "yardsticks.png", asked: int | None = 5
) -> str:
    def show(value: float | None, unit: float, digits: int) -> str:
        return "never" if value is None else f"{value / unit:.{digits}f}"

    rows = [
        (
            row["task"], row["entrant"], " ± ".join(f"{row[name]:.3f}" for name in ("mean", "interval") if row[name]),
            f"{row['best']['mean']:.3f}" if "best" in row else "", f"≤ {row['bar']:.2f}",
            f"{row['reached_by']} of {len(row['seeds'])}", show(row["median_steps_to_bar"], 1.0, 0),
            show(row["median_seconds_to_bar"], 60.0, 1), show(row["median_seconds"], 60.0, 1),
        )
        for row in result["rows"]
    ]  # fmt: skip
    header = ("task", "entrant", "distance ± 95 %", "`best`", "bar", "met by", "steps", "minutes", "of all")
    bars = f"\n{bar_list(result)}\n" if "bars" in result else ""
    count = len(result["rows"][0]["seeds"])
    seeds = f"{count} seeds" if asked is None or count >= asked else f"{count} seeds (**{asked} were asked**)"
    whose = "processor" if "clock" in result["runs"][0]["curve"][0] else "clock"
    return f"""## {title}

Final distance to the goal (m), mean of {result["final_episodes"]} episodes and its confidence interval over
{seeds}, after {result["total_steps"]} environment steps; median steps and minutes of the {whose} to the first of
the evaluations ({result["episodes"]} episodes) that meets the bar. The number behind an entrant is that of its
updates per step. Minutes compare only where one day made them: see [yardsticks](yardsticks.md) for that, and for what
is equal and what is not.

{table(header, rows)}
{bars}
![learning curves]({picture})

*Line: mean of the seeds; band: their range; dotted in black: the bar; dashed: one update a step.*
"""


def yardsticks_reach(result: dict[str, Any]) -> str:
    return yardsticks(result, "Outside yardsticks, Sawyer's hand", "yardsticks_reach.png", asked=None)


AXES = {"halved": "runs, half the particles", "warp": "environments, Warp"}  # of the scaling study, in words


def scaling(result: dict[str, Any]) -> str:
    rows = [
        (
            AXES.get(axis, axis), row["size"], f"{1e3 * row['seconds']:.1f}",
            f"{row['updates_per_second']:.0f} updates" if "updates_per_second" in row
            else f"{row['steps_per_second']:.0f} control steps",
            f"{row['gigaflop_per_second']:.1f}" if "gigaflop_per_second" in row else "",
            f"{100 * row['share_of_matrix_rate']:.0f} %" if "share_of_matrix_rate" in row else "",
            knee_of(row, found),
        )
        for axis, found in result["axes"].items() for row in found["rows"]
    ]  # fmt: skip
    header = ("varied", "size", "ms per call", "per second", "GFLOP/s needed", "of the matrix rate", "knee")
    bounds = "\n".join(f"- {AXES.get(axis, axis)}: {found['bound']}" for axis, found in result["axes"].items())
    return f"""## Scaling

{where(result)} Soft Q-learning, batch 64, eight updates in a call; simulation of PushLeft alone, whose operations are
not counted. The knee is the smallest size that gives four fifths of the best throughput, which says
little where it is the largest that was tried; below the table what bounds the largest size.

{table(header, rows)}

{bounds}

![throughput against size](scaling.png)
"""


def knee_of(row: dict[str, Any], found: dict[str, Any]) -> str:
    if row["size"] != found["knee"]:
        return ""
    return "the largest tried" if row is found["rows"][-1] else "yes"


FUSED = ("algorithm", "runs", "s", "learning", "evaluating", "environment steps/s", "updates/s")


def fused_row(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["algorithm"], row["runs"], *(f"{row[name]:.0f}" for name in ("seconds", "learning", "evaluating")),
        f"{row['environment_steps_per_second']:.0f}", f"{row['updates_per_second']:.0f}",
    )  # fmt: skip


def fused_on_warp(warp: dict[str, Any]) -> str:
    rows = [
        (*fused_row(row), f"{found['ratio']:.2f}", f"{found['p']:.2f}")
        for row, found in zip(warp["rows"], warp["against_jax"], strict=True)
    ]
    return f"""
The same trainings with MuJoCo Warp as the simulator.
{warp["note"] if "note" in warp else f"Everything after {warp['seconds']:.0f} s."}
The last two columns compare learning curves with those of MJX's JAX implementation above, by the same permutation test,
which would see only large differences.

{table((*FUSED, "distance, Warp over JAX", "p"), rows)}

`{warp["command"]}` (commit {warp["machine"]["commit"]})
"""


def fused(result: dict[str, Any]) -> str:
    lines = [
        (
            line["algorithm"], line["task"], "merged" if line["merged"] else "trained", f"{line['mean']:.3f}",
            " ".join(f"{mean:.3f}" for mean in line["seeds"]), "{:.2f} ± {:.2f}".format(*line["paper"]),
            "yes" if line["mean"] <= line["paper"][0] else "**no**",
        )
        for line in result["table"]
    ]  # fmt: skip
    bars = "" if result["small"] else f"\n{spell_bars(bars_of(result))}\n"
    different = [
        f"{row['algorithm']}, {row['what']}" for row in result.get("comparison", {}).get("rows", []) if row["p"] < 0.05
    ]
    compared = table(
        ("algorithm", "compared", "tasks", "runs here", "runs there", "ratio", "p"),
        [
            (row["algorithm"], row["what"], row["tasks"], *row["runs"], f"{row['ratio']:.2f}", f"{row['p']:.3f}")
            for row in result.get("comparison", {}).get("rows", [])
        ],
    )
    extraction = extraction_of(result)
    compared = f"""
Does the GPU learn what `qompose reproduce table1` learns on CPUs? A permutation test over runs, within each task, of
learning curves (mean logarithm of the distance over the evaluations of a training), and of final distances, trained
and merged. ratio: distances here over those there; p: how often chance alone gives one as far from 1, of each line by
itself. With so few runs only large differences would be seen. There are fewer curves than distances, since curves lie
in the runs, and not all of those were at hand. Merged policies come from {extraction} steps of extraction here, and
from {EXTRACTION_STEPS} there. At p < 0.05: {", ".join(different) or "none"}; of nine such lines without any difference
one would be there in a third of all cases.

{compared}

`{result["comparison"]["command"]}` ({result["comparison"]["machine"]["processor"]})
""" if "comparison" in result else ""  # fmt: skip
    return f"""## Table I on one GPU

{where(result)} {result["total_steps"]} environment steps of each run, all runs of an algorithm in one program; steps
and updates per second are summed over the runs, each while the other goes on. Trained after
{result["seconds_to_trained"]:.0f} s, everything after {result["seconds"]:.0f} s: compiling, training, composing
({extraction} steps of extraction) and measuring {result["episodes"]} episodes of each policy on C MuJoCo, on the other
cores.

{table(FUSED, [fused_row(row) for row in result["rows"]])}
{bars}
Mean final distance (m) of each seed, the stochastic policy:

{table(("algorithm", "task", "policy", "mean", "seeds", "the paper", "at most the paper's"), lines)}
{compared}{fused_on_warp(result["warp"]) if "warp" in result else ""}"""


def where(result: dict[str, Any]) -> str:
    if result["small"]:
        return "**A small run without a GPU: it shows that the program works. On a GPU: not yet measured.**"
    return f"On {result['device']}."


def peers(result: dict[str, Any]) -> str:
    rows = [
        (
            name, f"{median:.0f}", f"{min(result['rates'][name]):.0f} to {max(result['rates'][name]):.0f}",
            *(f"{others[name]:.2f}" if name in others else "" for others in result["ratios"].values()),
        )
        for name, median in result["medians"].items()
    ]  # fmt: skip
    header = ("entrant", "steps/s", "least to most", *(f"{mine}: times" for mine in result["ratios"]))
    return f"""## Peers

Environment steps per second on Gymnasium's {result["task"]}: one environment, one update per step, batch 64, two layers
of 128, one core for all. Seconds are the processor's. The entrants take turns, {result["steps"]} steps each,
{result["rounds"]} times; medians, and medians of the rounds' ratios of ours to theirs. See [yardsticks](yardsticks.md).

{table(header, rows)}

{bar_list(result)}
"""


def table1(result: dict[str, Any]) -> str:
    seeds = len(result["rows"][0]["seeds"])
    rows = [
        (
            row["task"], "merged" if row["merged"] else "trained", row["algorithm"], row["mode"],
            f"{row['mean']:.3f} ± {row['std_over_episodes']:.3f}",
            " ".join(f"{mean:.3f}" for mean in row["seeds"]), " ".join(f"{median:.3f}" for median in row["medians"]),
            f"{row['paper'][0]:.2f} ± {row['paper'][1]:.2f}", "yes" if row["mean"] <= row["paper"][0] else "**no**",
        )
        for row in result["rows"]
    ]  # fmt: skip
    header = (
        "task",
        "policy",
        "algorithm",
        "acting",
        "mean ± std over episodes",
        "seeds",
        "medians",
        "paper",
        "at or below",
    )
    return f"""## Table I

Final distance of the puck to its goal (m), {result["episodes"]} episodes of each of {seeds} seed(s). `merged`: composed
from the two lines without an environment. ±: deviation over a seed's episodes, mean over the seeds. `sample`: the
policy itself, of DDPG and NAF without noise; `best`: of its candidates that of highest Q. The last column compares
means alone.

{table(header, rows)}

The bars, which ask for 5 seeds, on the means of these {seeds} and `sample`:

{spell_bars(table1_bars(result["rows"]))}

![distances here and in the paper](table1_distances.png)
"""


def table1_bars(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """What is asked of Table I: the paper's means, and composed corners near those that were trained."""
    means = {
        (row["algorithm"], row["task"], row["merged"]): (row["mean"], row["paper"][0])
        for row in rows if row["mode"] == "sample"
    }  # fmt: skip
    bars: dict[str, bool] = {}
    for algorithm in dict.fromkeys(key[0] for key in means):
        for merged in (False, True) if algorithm == "sql" else (False,):
            these = {key[1]: value for key, value in means.items() if (key[0], key[2]) == (algorithm, merged)}
            if algorithm != "sql":  # asked of the lines alone
                these = {task: value for task, value in these.items() if task in CONSTITUENTS}
            above = [task for task, (mean, paper) in these.items() if mean > paper]
            what = f"{algorithm}, {'composed' if merged else 'trained'}, at or below the paper's mean"
            bars[f"{what} (above: {', '.join(above) or 'none'})"] = not above
    for task in CORNERS:
        composed, trained = means["sql", task, True][0], means["sql", task, False][0]
        behind = f"sql, {task} composed at most 0.05 m behind trained ({composed - trained:+.3f})"
        bars[behind] = composed - trained <= 0.05
    return bars


def corner_extraction(result: dict[str, Any]) -> str:
    rows = [
        (
            row["corner"], row["steps"], f"{row['temperature']:g}", row["mode"],
            f"{sum(row['mean']) / len(row['mean']):.3f}",
            " ".join(f"{x:.3f}" for x in row["mean"]), " ".join(f"{x:.3f}" for x in row["median"]),
            f"{row['paper'][0]:.2f} ± {row['paper'][1]:.2f}",
        )
        for row in result["rows"]
    ]  # fmt: skip
    header = ("corner", "steps", "temperature", "acting", "distance", "seeds", "medians", "paper")
    return f"""## What decides how near a composed policy comes

The merged corners of Table I, from lines that were trained earlier, by soft Q-learning: gradient steps of the
extraction, and the temperature of the composed policy. The skills have 0.1; the first rows of a corner are the
defaults. Distance (m), {result["episodes"]} episodes.

{table(header, rows)}
"""


def refit(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        mean, behind = np.mean(row["mean"]), np.mean(row["mean"]) - np.mean(trained_on(row["corner"], row["mode"]))
        rows.append((
            row["corner"], row["learned_from"], row["steps"], row["mode"], bold(f"{mean:.3f}", mean > row["paper"][0]),
            " ".join(f"{x:.3f}" for x in row["mean"]), " ".join(f"{x:.3f}" for x in row["median"]),
            f"{row['paper'][0]:.2f} ± {row['paper'][1]:.2f}", bold(f"{behind:+.3f}", behind > 0.05),
            "" if None in row["seconds"] else " ".join(f"{x:.0f}" for x in row["seconds"]),
        ))  # fmt: skip
    lines = [
        (row["task"], row["corner"], row["learned_from"], " ".join(f"{x:.3f}" for x in row["mean"]))
        for row in result["lines"]
        if row["mode"] == "sample"
    ]
    header = (
        "corner", "learned from", "steps", "acting", "distance", "seeds", "medians", "paper", "behind trained",
        "seconds for both",
    )  # fmt: skip
    return f"""## Refitted before they are composed

Corners of the pusher from two lines of soft Q-learning: as they are, after {result["updates"]} further updates of each
from its own replay, and after as many from the replays of both (`qompose refit`); gently: learning rates of
{REFIT_RATES[GENTLE]:g} instead of {REFIT_RATES[ALL]:g}. Then they are composed, with so many steps of extraction.
Distance (m), {result["episodes"]} episodes; seconds of the updates on one core, some of them beside other work. Bold:
farther than the paper's mean, or more than 0.05 m behind the policies that Table I trained on the corner with as many
steps as a line has.

![distance of the composed policy](refit.png)

The picture has the stochastic policy after the short extraction, and the policies of Table I that were trained on the
corner.

{table(header, rows)}

The lines on their own tasks (stochastic policy). One that learned from both replays did so with the other line of the
corner.

{table(("line", "for", "learned from", "distance, seed by seed"), lines)}
"""


def fig2(result: dict[str, Any]) -> str:
    rows = [
        (
            row["algorithm"], seed, f"{one['spread_of_left']:.2f}", f"{one['spread_of_bottom']:.2f}",
            "{:.2f}, {:.2f}".format(*one["composed"]), "{:.2f}, {:.2f}".format(*one["average"]),
            f"{one['composed_to_goal']:.2f}", f"{one['average_to_goal']:.2f}",
        )
        for row in result["rows"] for seed, one in enumerate(row["seeds"])
    ]  # fmt: skip
    header = (
        *("algorithm", "seed", "spread of left", "spread of bottom", "composed ends", "average of the two"),
        *("mean end to the goal", "average to the goal"),
    )
    return f"""## Fig. 2: interpolation or averaging

Standard deviation of the puck's end (m) along the coordinate that a line leaves free, where the composed policy ends
on average, and where averaging the two lines' ends would lead.

{table(header, rows)}

{spell_bars(fig2_bars(result["rows"]))}

![soft Q-learning, seed 0](fig2_sql.png)
"""


def fig2_bars(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Spread along the free coordinate, mean over the seeds; and where compositions lead, seed by seed."""
    bars: dict[str, bool] = {}
    for line in ("left", "bottom"):
        each = {row["algorithm"]: [one[f"spread_of_{line}"] for one in row["seeds"]] for row in rows}
        means = {name: mean_of(spreads) for name, spreads in each.items()}
        widest = sum(own == max(all_of) for own, *all_of in zip(each["sql"], *each.values(), strict=True))
        spelt = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        what = f"sql spreads more than the others along {line} in the mean ({spelt}; most in {widest} of"
        bars[f"{what} {len(each['sql'])} seeds)"] = means["sql"] == max(means.values())
    for row in rows:
        near = [one["composed_to_goal"] < one["average_to_goal"] for one in row["seeds"]]
        name = f"{row['algorithm']} composed ends nearer to the corner than the average ({sum(near)} of {len(near)})"
        bars[name] = all(near)
    return bars


def mean_of(numbers: Iterable[float]) -> float:
    found = list(numbers)
    return sum(found) / len(found)


def fig3(result: dict[str, Any]) -> str:
    names = ("steps", "end", "late", "online_late", "level", "steps_to_level", "online_steps_to_level", "ratio")
    rows = [
        (row["curve"], seed, *(f"{one[name]:.3g}" if isinstance(one[name], float) else one[name] for name in names))
        for row in result["rows"] for seed, one in enumerate(row["seeds"]) if "online" not in row["curve"]
    ]  # fmt: skip
    ratios = [one["ratio"] for row in result["rows"] if row["curve"] == "extraction, sql" for one in row["seeds"]]
    at_bar = sum(ratio is None or ratio >= 20 for ratio in ratios)
    offline = [one for row in result["rows"] if row["curve"] == "offline sql" for one in row["seeds"]]
    converged = sum(one["late"] <= one["online_late"] + result["close"] for one in offline)
    header = (
        *(
            "curve",
            "seed",
            "gradient steps",
            "distance at the end",
            "last three points",
            "online's last three",
            "level",
        ),
        *("steps to it", "online's steps to it", "ratio"),
    )
    return f"""## Fig. 3: gradient steps to a policy for the corner

Distances in m, mean of {result["episodes"]} episodes. At the level a tenth of the curve's way from its first point, a
policy after one step, to its last is left; the ratio is online SQL's gradient steps to it over those of the curve
(bar: 20). Where a curve ends far from the goal, its ratio says nothing: it is quickly as near as it ever comes.

{table(header, rows)}

- sql's ratio at least 20: {at_bar} of {len(ratios)} seeds{"" if at_bar == len(ratios) else " (**missed**)"}
- offline SQL ends at most {result["close"]:g} m above online SQL: {converged} of {len(offline)} seeds

![distance against gradient steps](fig3_steps.png)
"""


def fig4(result: dict[str, Any]) -> str:
    def shares(row: dict[str, Any], mode: str) -> str:
        return " ".join(f"{share:.2f}" for share in row["success"].get(mode, ()))

    rows = [
        (
            row["task"], row["algorithm"], " ".join(f"{1000 * mean:.1f}" for mean in row["seeds"]),
            " ".join(f"{1000 * median:.1f}" for median in row["medians"]), f"{1000 * row['within']:.1f}",
            steps_of(row["steps_to_bar"]), shares(row, "sample"),
            " ".join(f"{1000 * mean:.1f}" for mean in row["best"] or ()), shares(row, "best"),
        )
        for row in result["rows"]
    ]  # fmt: skip
    header = (
        *("task", "algorithm", "each seed's mean", "medians", "90 % within", "steps to 20 mm", "solved"),
        *("`best`, each seed", "solved"),
    )
    return f"""## Fig. 4: Sawyer reaches

Final distance of the hand to its target (mm), {result["episodes"]} episodes of each seed after 12 000 steps (one
target) or 18 000 (a target of its own in each episode), and the steps, 20 to a second of robot time, to the first
evaluation with a mean of 20 mm or less. Solved: share of episodes that end within 10 mm for ten steps. The paper's soft
Q-learning reaches in about 10 minutes, sooner than DDPG and NAF, and random targets almost as fast with more variation.
Its curve is that of training episodes, as the fourth one here (mean of the last ten); the others are of evaluations.
Targets that differ are learned with four updates a step by all three; that was chosen on these same seeds (the next
section has what fewer came to). Nothing was tuned for DDPG and NAF here.

{table(header, rows)}

![final distance against robot time](fig4_reaching.png)

{spell_bars(fig4_bars(result["rows"]))}
"""


def fig4_bars(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Of soft Q-learning, in every seed."""
    one, random = (
        next(row for row in rows if (row["algorithm"], row["task"]) == ("sql", task))
        for task in ("SawyerReach", "SawyerReachRandom")
    )
    return {
        "one target: at most 20 mm after 12 000 steps": max(one["seeds"]) <= 0.02,
        "and already within 6000": all(step is not None and step <= 6000 for step in one["steps_to_bar"]),
        "a target of its own in each episode: at most 20 mm after 18 000 steps": max(random["seeds"]) <= 0.02,
    }


def fig5(result: dict[str, Any]) -> str:
    rows = [
        (
            row["algorithm"], mode,
            *(" ".join(f"{share:.2f}" for share in row["success"][mode][trial]) for trial in result["episodes"]),
            " ".join(map(str, row["of_twenty"][mode])), steps_of(row["first_success"]),
        )
        for row in result["rows"] for mode in row["success"]
    ]  # fmt: skip
    header = (
        *("algorithm", "acting", *(f"{trial} ({count})" for trial, count in result["episodes"].items())),
        *("of the first 20", "first success"),
    )
    lengths = ", ".join(f"{seconds:.0f} s ({trial})" for trial, seconds in result["seconds"].items())
    return f"""## Fig. 5: Sawyer stacks

Share of the episodes that end with all four studs in place, for each seed (in brackets how many episodes), after
{result["total_steps"]} steps; 144 000 were allowed. The last column are the steps, 20 to a second of robot
time, to the first evaluation with a success. An episode lasts
{lengths}. A stud that loses contact at any of the last four instants spoils it. A fifth of the starts, here as in
training, are within 3 cm above the goal.

In the paper soft Q-learning inserts the brick first after half an hour, stacks 20 of 20 times after two hours, and
recovers every time. Soft Q-learning's temperature was chosen for this task, nothing of DDPG and NAF.

{table(header, rows)}

![final distance against robot time](fig5_stacking.png)

Of soft Q-learning, in every seed but where it says otherwise:

{spell_bars(fig5_bars(result["rows"]))}
"""


def fig5_bars(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    row = next(row for row in rows if row["algorithm"] == "sql")
    bars = {
        f"`{mode}`, {trial}: at least {bar:g}": min(shares) >= bar
        for mode, trials in row["success"].items()
        for (trial, shares), bar in zip(trials.items(), (0.95, 0.9, 0.9), strict=True)
    }
    for mode, counts in row["of_twenty"].items():
        whole = sum(count == 20 for count in counts)
        what = f"`{mode}`: 20 of 20 in at least two of three seeds ({whole} of {len(counts)})"
        bars[what] = 3 * whole >= 2 * len(counts)
    first = row["first_success"]
    for what, steps in (("first success within", 36_000), ("and, as an aim, within", 18_000)):
        bars[f"{what} {steps} steps"] = all(step is not None and step <= steps for step in first)
    return bars


def fig6(result: dict[str, Any]) -> str:
    rows = [
        (
            row["policy"], row["mode"],
            *(" ".join(f"{share:.2f}" for share in row[name]) for name in ("seated", "collided", "success")),
        )
        for row in result["rows"]
    ]  # fmt: skip
    header = ("policy", "acting", "brick in place", "tower touched", "held in place, never touched")
    return f"""## Fig. 6: stacking behind a tower

Shares of {result["episodes"]} episodes in `SawyerStackAvoid`, for each seed. Composed from the
replays of the two skills alone: `composed` acts on the mean of the two Q-functions with candidates from both samplers,
`extracted` with those of a new sampler for the mean; `1:3` has avoiding three times as heavy; `corrected` is the mean
less the divergence correction, extracted. In place: at the last instant. Held: at the last four, which a stud that
loses contact for a moment spoils. Touched: in any step of the simulator. The seeds of these episodes are others than
those with which the weights were chosen. In the paper, of 10 trials each: avoiding alone never stacks; stacking alone
touches the obstacle every time, and stacks all the same in 30 %; composed 10 of 10 do both.

{table(header, rows)}

![what happens at the tower](fig6_tower.png)

*Of each policy the first of its ways of acting in the table.*

In every seed:

{spell_bars(fig6_bars(result["rows"]))}
"""


def tower(result: dict[str, Any]) -> str:
    rows = [
        (
            f"{row['weight']:g}", f"{row['part']:g}", row["mode"],
            *(" ".join(f"{share:.2f}" for share in row[name]) for name in ("seated", "collided", "success")),
            f"{mean_of(row['success']):.2f}",
        )
        for row in result["rows"]
    ]  # fmt: skip
    header = (
        *("weight of avoiding", "temperature, times", "acting", "brick in place", "tower touched"),
        *("held in place, never touched", "mean"),
    )
    return f"""## How heavy avoiding must be

Fig. 6's skills, composed with other weights (stacking has 1) and at a lower temperature, acting on the sum itself:
shares of {result["episodes"]} episodes for each seed, others than Fig. 6's.

{table(header, rows)}

Where `resample` cannot be seen in the picture it lies under `best`.

![shares over the weight of avoiding](tower.png)
"""


def fig6_bars(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    composed = [(row["mode"], row["success"]) for row in rows if row["policy"] == "composed 1:3"]
    return {
        "avoid stacks in no episode": all(max(row["seated"]) == 0.0 for row in rows if row["policy"] == "avoid"),
        "stack touches the tower in at least 0.9": all(
            min(row["collided"]) >= 0.9 for row in rows if row["policy"] == "stack"
        ),
        **{
            f"composed 1:3 (`{mode}`), held in place and never touched in at least 0.9": min(shares) >= 0.9
            for mode, shares in composed
        },
    }


def operators(learned: dict[str, Any]) -> str:
    problems = list(dict.fromkeys(row["problem"] for row in learned["rows"]))
    names = list(dict.fromkeys(row["operator"] for row in learned["rows"]))
    cells = {(row["problem"], row["operator"]): row for row in learned["rows"]}
    lost, reached = (
        table(("operator", *problems), [
            (name, *(spell(cells[problem, name][figure]) for problem in problems)) for name in names
        ])
        for figure in ("loss", "success")
    )  # fmt: skip
    return f"""{learned["episodes"]} episodes of each seed; mean over the seeds and its 95 % interval (Student's t).
Acting directly on the composed Q. What the return falls short of that of a skill trained on the composed task from
scratch, as a share of what the uniform policy does:

{lost}

Success:

{reached}
"""


def composition(result: dict[str, Any]) -> str:
    return f"""## Composition

Learned skills of a point. {operators(result["learned"])}
{spell_bars(composition_bars(result["learned"]["rows"]))}

![operators on learned skills](composition_operators.png)

What the mean loses on {result["problems"]} finite problems of each family, exactly, over temperatures:

![what the mean loses](composition_temperature.png)
"""


def composition_bars(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """In each problem the corrected sum loses at most half as much as the mean, in the mean over the seeds."""
    loss = {(row["problem"], row["operator"]): row["loss"]["mean"] for row in rows if row["loss"]}  # if not refused
    return {
        f"{problem}: corrected, at most half of what the mean loses": loss[problem, "corrected"] <= mean / 2
        for (problem, operator), mean in loss.items() if operator == "mean"
    }  # fmt: skip


def corners(result: dict[str, Any]) -> str:
    return f"""## Composition on the pusher

{operators(result)}
{spell_bars(corners_bars(result["rows"]))}

![operators on the corners](corners_operators.png)
"""


def corners_bars(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """At each corner the corrected sum loses no more than the mean, seed against seed; with the 95 % interval."""
    loss = {(row["problem"], row["operator"]): row["loss"]["seeds"] for row in rows if row["loss"]}
    bars = {}
    for problem in dict.fromkeys(row["problem"] for row in rows):
        apart = interval_of(np.subtract(loss[problem, "corrected"], loss[problem, "mean"]).tolist())
        half = "" if apart["half"] is None else f" ± {apart['half']:.3f}"
        bars[f"{problem}: corrected loses no more than the mean ({apart['mean']:+.3f}{half})"] = apart["mean"] <= 0.0
    return bars


def correction(result: dict[str, Any]) -> str:
    def gather(what: str, found: Sequence[dict[str, Any]]) -> tuple[str, ...]:
        return (what, *(_mean_and_worst([one[name] for one in found]) for name in ("error", "sum", "corrected")))

    seeds = result["rows"]
    rows = [gather("equal weights", [row["equal_weights"] for row in seeds])]
    for index, one in enumerate(seeds[0]["all_weights"]):
        weights = ", ".join(f"{weight:g}" for weight in one["weights"])
        rows.append(gather(f"all weights at once, at {weights}", [row["all_weights"][index] for row in seeds]))
    bar = result["bar"]["error"]
    bars = {
        f"{what}, error of C at most {bar} in every seed ({sum(error <= bar for error in errors)} of {len(errors)})":
            max(errors) <= bar
        for what, errors in (
            ("equal weights", [row["equal_weights"]["error"] for row in seeds]),
            ("all weights at once", [one["error"] for row in seeds for one in row["all_weights"]]),
        )
    }  # fmt: skip
    spoilt = {
        name: _mean_and_worst([row["spoilt_critics"][name] for row in seeds]) for name in ("sum", "blind", "residuals")
    }
    return f"""## How exact the learned correction is

On a line whose correction is known, {len(seeds)} seeds, mean and worst: root mean square error of C, relative to C and
weighted by visits, and regrets of the sum and of the corrected sum over all states.

{table(("learned", "error of C", "the sum loses", "corrected"), rows)}

{spell_bars(bars)}

With critics that are spoilt on purpose the sum loses {spoilt["sum"]}, the blind correction {spoilt["blind"]},
the one with Bellman residuals {spoilt["residuals"]}.
"""


def _mean_and_worst(values: Sequence[float]) -> str:
    """Of errors; one figure where all are the same."""
    mean, worst = f"{np.mean(values):.3f}", f"{max(values):.3f}"
    return mean if mean == worst else f"{mean} (at most {worst})"


def coverage(result: dict[str, Any]) -> str:
    low, high = result["bar"]["coverage"]
    return f"""## Does the certificate's interval hold the regret?

On a line whose regret is known, {result["regret"]:.2f} on average over the states held out: the nominal
{result["nominal"]:.0%} interval of `explain` holds it in {result["coverage"]:.0%} of {len(result["rows"])} seeds (bar:
{low:.0%} to {high:.0%}). Median width {result["median_width"]:.2f} (bar: at most the regret);
bias {result["bias"]:+.3f}.
"""


def ranking(result: dict[str, Any]) -> str:
    rows = [
        (
            " and ".join(row["names"]), ", ".join(f"{weight:g}" for weight in row["weights"]), f"{row['truth']:.3f}",
            f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]", row["verdict"],
        )
        for row in sorted(result["rows"], key=lambda row: row["truth"])
    ]  # fmt: skip
    return f"""## Does `explain` know which pairs lose more?

On a line whose regrets are known, {result["pairs"]} pairs of skills, opposite ones and negative weights among them:
Spearman's coefficient of certificate and regret {result["spearman"]:.2f} (bar: {result["bar"]}).

{table(("skills", "weights", "regret", "certificate", "verdict"), rows)}
"""


def ranking_pusher(result: dict[str, Any]) -> str:
    rows, ways = [], result["ways"]
    for row in sorted(result["rows"], key=lambda row: np.mean(row["loss"])):
        said = []
        for way in ways:
            found = row["explanations"][way]
            verdicts = Counter(one["verdict"] for one in found)
            said.append(_mean_of([one["regret"]["mean"] for one in found]))
            said.append(", ".join(f"{verdict} {count}" for verdict, count in verdicts.items()))
        rows.append((row["pair"].replace("-", " "), _mean_of(row["loss"]), *said))
    words = {"together": "the pairs of equal weights", "avoided": "the pairs with an avoided skill"}
    seeds, known, bar = len(result["rows"][0]["loss"]), len(result["known"]), result["bar"]
    found = []
    for way, of in ways.items():
        among = {f"among {words[kind]}": value for kind, value in of["within"].items()}
        if known < len(rows):
            among["among those whose loss is known"] = of["of_known"]
        spelt = ", ".join(f"{value:.2f} {what}" for what, value in among.items() if value is not None)
        found.append(
            f"- {way}: {of['spearman']:.2f} (bar: {bar}: {'met' if of['spearman'] >= bar else '**missed**'}), {spelt}; "
            f"seed by seed {' '.join(f'{value:.2f}' for value in of['seeds'])}. The interval holds the loss in "
            f"{of['intervals_that_hold']} of {of['intervals']} cases. The sum lost little, by the rule of thumb of the "
            "verdicts (a tenth of what acting at random loses), where the verdict was "
            + ", ".join(
                f"{verdict}, {counts['lost_little']} times of {counts['given']}"
                for verdict, counts in sorted(of["verdicts"].items())
            )
            + "."
        )
    header = ("pair", "lost", *(word for way in ways for word in (f"certificate, {way}", "verdicts")))
    unknown = " Where both end worse than the sums, what these lose is not known." if known < len(rows) else ""
    return f"""## Does `explain` know which pairs of the pusher lose more?

Every pair of the four lines at equal weights, and six whose second is avoided with half a weight; lines of {seeds}
seeds. Lost: soft return of a skill trained on the sum of the rewards, less that of the sum's Boltzmann policy
({result["episodes"]} episodes from equal starts; discounted, in reward units). Two are trained, from scratch and, half
as long, from the composition of the lines of seed {result["reference"]}; the better one counts, which is that from the
composition for {sum(row["better"] == BEGINS[1] for row in result["rows"])} of {len(rows)} pairs.{unknown} Certificate:
the regret that `explain` prints ({result["steps"]} steps), as it is and with the critics' Bellman residuals taken off
(`--residuals`); not of the same states: it is a mean over states of the replays that no network has seen. Means over
the seeds, and the seeds, which share the reference. Spearman's coefficient of the means of loss and certificate:

{chr(10).join(found)}

Of the loss and D* {result["others"]["theorem"]:.2f}, and the divergence {result["others"]["divergence"]:.2f}.

{table(header, rows)}

![certificate against loss](ranking_pusher.png)

*Round: equal weights; square: the second skill is avoided; bars: the range over the seeds.*
"""


def _mean_of(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ({' '.join(f'{value:.1f}' for value in values)})"


def fine_tune_point(result: dict[str, Any]) -> str:
    rows = [(row["seed"], f"{row['level']:.2f}", *steps_of(row["steps"].values()).split()) for row in result["rows"]]
    return f"""## Training a composition further

Two skills of a point whose sum fails ("{result["problem"]}"), trained further on the composed task: environment steps
to the level of a skill trained from scratch with {result["total_steps"]} steps, evaluated every {result["every"]}; the
bar is a quarter of the steps from scratch. Trained further for a quarter of them at most.

{table(("seed", "level (return)", "from scratch", "from the sum", "from the corrected sum"), rows)}
"""


def fine_tune(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        steps, others = row["steps_to_level"], row["scratch_steps_to_level"]
        reached = ("never", others, "") if steps is None else (steps, others, f"{steps / others:.2f}")
        means = (row["composed"]["mean"], row["further"]["mean"], row["level"])
        rows.append((row["start"], row["seed"], *(f"{mean:.3f}" for mean in means), *reached))
    counts = Counter(row["start"] for row in result["rows"])
    at_bar = result["seeds_at_bar"]
    bars = {
        f"lines {start}: at most {result['bar']:g} of the steps from scratch ({at_bar[start]} of {count} seeds)":
            at_bar[start] == count
        for start, count in counts.items()
    }  # fmt: skip
    return f"""## Training a composition of the pusher further

Left and bottom composed, the composition trained further on the corner for a quarter of the steps of a training from
scratch: distance (m, 100 episodes), and environment steps to the level of the training from scratch, which is its mean
over its last quarter (20 episodes at a time). The lines are composed {" or ".join(counts)}. Neither the steps of left
and bottom themselves nor updates without an environment are counted.

{table(("lines", "seed", "composed", "trained further", "level", "steps to it", "from scratch", "share"), rows)}

{spell_bars(bars)}
"""


def wall_clock(result: dict[str, Any]) -> str:
    rows = [
        (
            row["seed"], f"{row['seconds']:.0f}", *(f"{distance:.3f}" for distance in row["distances"].values()),
            "yes" if row["at_bar"] else "**no**",
        )
        for row in result["rows"]
    ]  # fmt: skip
    bars = " and ".join(f"{bar:.2f} m" for bar in result["bars_of_distances"].values())
    median = median_seconds(result["rows"])
    return f"""## From nothing to a composition

The demonstration, without refit and film, with {result["total_steps"]} steps for each skill instead of 60000: seconds
until everything is trained, composed, evaluated and drawn, and mean distances of 100 episodes (m). The bars of left and
bottom are {bars}. A seed that misses one counts as never: median {median:.0f} s (bar: {result["bar"]:.0f}:
{"met" if median <= result["bar"] else "**missed**"}).

{table(("seed", "s", *result["rows"][0]["distances"], "both at their bars"), rows)}
"""


def reliability(sections: dict[str, dict[str, Any]]) -> str:
    """A row for each section that is there; each has a command, a machine and a commit of its own in the file."""

    def count(number: int) -> str:
        return f"{number:,}".replace(",", " ")

    def crashes(r: dict[str, Any]) -> str:
        log, kept = r["log"], r["checkpoint"]
        bad = len(log["bad"]) + len(kept["bad"])
        return f"{count(log['states'])} of the log, {count(kept['states'])} of checkpoints: {bad} read wrongly"

    def kills(r: dict[str, Any]) -> str:
        other = r["trainings_with_other_bits"]
        return (
            f"{r['kills']} kills of {r['trainings']} trainings, {r['saves_torn']} torn saves: {other} with other bits"
        )

    def mutants(r: dict[str, Any]) -> str:
        return (
            f"{count(r['mutations'])} of {r['kinds_of_skills']} kinds: {count(r['refused'])} refused, "
            f"{count(r['loaded'])} acted, {r['bad']} bad, {r['events']} events, {r['slowest_ms']:.0f} ms at most"
        )

    def scenes(r: dict[str, Any]) -> str:
        models = r["hostile"] - r["refused"]
        return (
            f"{r['hostile']}: {r['refused']} refused, {models} gave a model and may, {len(r['bad'])} bad; "
            f"{r['harmless_models']} harmless ones accepted; {r['slowest_seconds']:.1f} s, "
            f"{r['most_megabytes'] / 1000:.1f} GB at most"
        )

    def soak(r: dict[str, Any]) -> str:
        same = all(len(set(r[name])) == 1 for name in ("descriptors", "threads", "compilations"))
        grew = f"{r['megabytes_per_100_000_steps']:+.2f} MB per 100 000 steps (median of slopes after a warm-up)"
        return f"{count(r['steps'])} steps: {grew}, {'nothing else' if same else 'something else, too,'} grew"

    rows: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
        "R1": ("crash states of log and checkpoints, none read wrongly", "1 M", crashes),
        "R2": ("kills by SIGKILL, final bits equal", "100", kills),
        "R3": (
            "the same bits in several processes, on one core and two", "every agent",
            lambda r: f"{r['processes']} processes, NPROC={r['threads']}: {'' if r['same'] else 'not '}the same",
        ),
        "R4": ("mutated skills", "1 M", mutants),
        "R5": (
            "hand-made hostile skills, refused by the field's name", "100",
            lambda r: str(r["hostile_skills_refused_naming_the_field"]),
        ),
        "R6": ("hostile scenes and meshes", "30; 10 s, 2 GB", scenes),
        "R7": (
            "faults of environments, nothing bad stored, every agent", "12",
            lambda r: f"{len(r['caught_and_nothing_stored'])} in one line; stored as told, as nobody can tell them "
            f"from an environment that is so: {', '.join(r['stored_as_told_parameters_finite'])}",
        ),
        "R8": (
            "planted divergences caught before the policy changes", "40",
            lambda r: str(r["divergences_caught_before_the_policy_changed"]),
        ),
        "R9": ("soak", "under 1 MB per 100 000 steps", soak),
        "R15": (
            "properties for whatever Hypothesis draws", "60",
            lambda r: f"{r['properties']}, {r['on_200_random_mdps_each']} of them on 200 random MDPs each; "
            f"{len(r['failed'])} failed",
        ),
    }  # fmt: skip
    table_rows = [
        (name, what, bar, spell(sections[name]["result"]), f"`{sections[name]['command']}`")
        for name, (what, bar, spell) in rows.items() if name in sections
    ]  # fmt: skip
    return f"""## Reliability

What is promised and how it is tested is said [there](reliability.md), the numbers are those of its bars. `make
reliability` makes the figures again.

{table(("", "what", "bar", "measured", "command"), table_rows)}
"""


PAPER = ("table1", "fig2", "fig3", "fig4", "fig5", "fig6", "composition", "corners")  # made by `qompose reproduce`
SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    section.__name__: section
    for section in (
        table1,
        corner_extraction,
        refit,
        variants_naf,
        fig2,
        fig3,
        pusher,
        variants_corner,
        variants_lines,
        fig4,
        variants_reach,
        fig5,
        fig6,
        tower,
        composition,
        corners,
        correction,
        coverage,
        ranking,
        ranking_pusher,
        fine_tune_point,
        fine_tune,
        reach,
        sawyer_expert,
        sampler_fidelity,
        soft_value,
        update_speed,
        update_speed_intel,
        variants_particles,
        act_speed,
        wall_clock,
        scaling,
        fused,
        peers,
        yardsticks,
        yardsticks_reach,
    )
}


OTHERWISE = {
    "peers": "python -m benchmarks.yardsticks --speed",
    "yardsticks_reach": "python -m benchmarks.yardsticks --reach",
    **{f"variants_{name}": f"python -m benchmarks.variants {name}" for name in QUESTIONS},
}  # of those whose command is not called like their file


def write_page(results: Path = RESULTS) -> str:
    """The page, as the files say it today."""
    parts, missing = [HEAD], []
    for name, section in SECTIONS.items():
        path = results / f"{name}.json"
        if not path.exists():
            command = f"qompose reproduce {name}" if name in PAPER else f"python -m benchmarks.{name}"
            command = OTHERWISE.get(name, command)
            missing.append(f"`{command}`")
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        machine, makers = record["machine"], record.get("runs_made_by") or record["result"].get("runs_made_by", [])
        processors = dict.fromkeys(system["processor"] for system in (machine, *makers))
        source = (
            f"`{record['command']}` → `results/{path.name}` ({' and '.join(processors)}, {machine['cores']} cores)\n"
        )
        parts.append(section(record["result"]) + "\n" + source)
    if missing:
        parts.append(f"## Not yet measured\n\n{', '.join(missing)}.\n")
    parts.append(reliability(json.loads((results / "reliability.json").read_text(encoding="utf-8"))))
    titles = [part.partition("\n")[0].removeprefix("## ") for part in parts[1:]]
    parts.insert(1, " · ".join(f"[{title}](#{anchor_of(title)})" for title in titles) + "\n")
    return "\n".join(parts)


def anchor_of(title: str) -> str:
    """Where a link to a heading leads: small letters, words joined by hyphens, no other signs."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def publish(description: str | None, page: Path, text: str) -> None:
    """The whole of a command that writes a page and takes no options."""
    argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    page.write_text(text, encoding="utf-8")
    print(page.relative_to(RESULTS.parent))


if __name__ == "__main__":
    publish(__doc__, PAGE, write_page())
