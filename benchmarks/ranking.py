"""Does `explain` know which compositions lose more? Certificates of many pairs against their exact regrets, on a line.

    python -m benchmarks.ranking

Every pair of six skills at equal weights, opposite ones included, and three in which the second is avoided. The truth
is the oracle's regret of the sum, under the true rewards, over all states; the orders are compared by Spearman's
coefficient. Writes results/ranking.json after every pair.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from scipy.stats import spearmanr

from benchmarks import line
from benchmarks.machine import write_results
from benchmarks.options import read_options
from qompose.explanation import explain

TEMPERATURE = 0.1
AVOIDED = (("first", "second"), ("middle", "low"), ("low", "high"))


def pairs() -> list[tuple[tuple[str, str], tuple[float, float]]]:
    """Names and weights."""
    equal = [(names, (0.5, 0.5)) for names in itertools.combinations(line.MODES, 2)]
    return [*equal, *((names, (1.0, -0.5)) for names in AVOIDED)]


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows and how well their two orders agree."""
    agreement = spearmanr([row["truth"] for row in rows], [row["mean"] for row in rows])[0]
    return {"spearman": float(agreement), "pairs": len(rows), "bar": 0.8, "rows": rows}


def main() -> None:
    read_options(__doc__)
    skills = {name: line.make_skill(name, TEMPERATURE, seed) for seed, name in enumerate(line.MODES)}
    rows: list[dict[str, Any]] = []
    for names, weights in pairs():
        begin = time.perf_counter()
        chosen = [skills[name] for name in names]
        exact = line.solve_for(chosen, weights)
        report = explain(dict(zip(chosen, weights, strict=True)))
        truth = float(exact.regret(exact.total).mean())
        rows.append({
            "names": names, "weights": weights, "truth": truth, **vars(report.regret), "verdict": report.verdict,
            "seconds": time.perf_counter() - begin,
        })  # fmt: skip
        print(
            f"{names} {weights}: exact {truth:.3f}, certificate {report.regret.mean:.3f}, {report.verdict}", flush=True
        )
        if len(rows) > 1:
            write_results("ranking", summarise(rows), command="python -m benchmarks.ranking", seed=0)
    print(f"Spearman {summarise(rows)['spearman']:.3f} over {len(rows)} pairs")


if __name__ == "__main__":
    main()
