import json

import numpy as np
import pytest

from qompose.cli import main
from qompose.paper import composition, operators
from qompose.paper.study import Study
from qompose.soft import finite
from qompose.soft.compose import prefer_values
from qompose.store import write_json


@pytest.mark.parametrize("family", composition.FAMILIES)
@pytest.mark.parametrize("skills", composition.SKILLS)
def test_the_correction_loses_nothing_and_gpi_no_more_than_the_best_skill(family, skills):
    reward, kernel = composition.draw_problem(family, skills, np.random.default_rng(3))
    np.testing.assert_allclose(kernel.sum(axis=-1), composition.DISCOUNT)
    found = composition.measure(reward, kernel, 0.1)
    assert set(found) == set(composition.OPERATORS)
    assert abs(found["corrected"][0]) < 1e-9 and found["from scratch"][0] == 0.0
    assert found["half-corrected"][0] <= found["mean"][0] and found["gpi"][0] <= found["constituents"][0]
    assert all(0.0 <= success <= 1.0 for _, success in found.values())


def test_the_loss_of_the_mean_is_its_certificate():
    reward, kernel = composition.draw_problem("modes", 2, np.random.default_rng(0))
    alpha = np.full(2, 0.3)
    q = finite.optimal_q(reward, kernel[None], alpha)
    gap = finite.correction(q, finite.state_value(q, alpha), [0.5, 0.5], kernel, 0.3)
    regret = finite.soft_regret(q.mean(axis=0), gap, kernel, 0.3).mean()
    flat = np.ones_like(gap)
    composed = reward.mean(axis=0)
    best = finite.state_value(finite.optimal_q(composed, kernel, 0.3), 0.3).mean()
    span = best - finite.policy_value(finite.evaluate(composed, kernel, flat, 0.3), flat, 0.3).mean()
    assert composition.measure(reward, kernel, 0.3)["mean"][0] == pytest.approx(regret / span, rel=1e-8)


def test_the_command_writes_figures_and_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(composition, "PROBLEMS", 2)
    monkeypatch.setattr(composition, "TEMPERATURES", (0.1, 1.0))
    monkeypatch.setattr(composition, "FAMILIES", ("lines", "random"))
    made = Study(tmp_path / "out", 2, 60_000)
    made.open()
    figures = {name: {"return": 2.0, "success": 0.5, "distance": 1.0} for name in operators.OPERATORS}
    figures |= {"from scratch": {"return": 3.0, "success": 0.75, "distance": 1.0}, "or": None}
    for problem in operators.PROBLEMS:
        for seed in range(2):  # as if all had been measured
            path = operators.measuring_job(made, problem, seed).file
            path.parent.mkdir(exist_ok=True)
            record = {"problem": problem, "seed": seed, "figures": figures, "uniform": 1.0, "system": {"commit": "c"}}
            write_json(path, record)
    assert main(["reproduce", "composition", "--seeds", "2", "--output-dir", str(made.folder)]) == 0
    printed = capsys.readouterr().out
    assert "corrected, 3" in printed and "0.50 ± 0.00 │ 0.50 ± 0.00 │ 1.00 ± 0.00" in printed
    record = json.loads((made.folder / "composition.json").read_text())
    assert len(record["result"]["rows"]) == 2 * 2 * 2 * len(composition.OPERATORS)
    assert len(record["result"]["learned"]["rows"]) == len(operators.PROBLEMS) * len(operators.OPERATORS)
    assert record["runs_made_by"] == [{"commit": "c"}] and not (made.folder / "runs").exists()
    for name in ("temperature", "operators"):
        assert (made.folder / f"composition_{name}.png").stat().st_size > 1000


def test_the_other_operators_lose_what_their_energies_lose():
    alpha, slack = 0.1, composition.SLACK
    reward, kernel = composition.draw_problem("modes", 3, np.random.default_rng(1))
    q = finite.optimal_q(reward, kernel[None], np.full(3, alpha))
    composed, width = reward.mean(axis=0), composition.WIDTH * composition.SLACK

    def worth(policy):
        return finite.policy_value(finite.evaluate(composed, kernel, policy, alpha), policy, alpha).mean()

    def least(high, low):  # the first is preferred to the second, and both to the third
        return prefer_values(high, high.max(axis=-1, keepdims=True), low, slack, width, composition.PRICE * width)

    energies = {
        "prefer": least(q[0], least(q[1], q[2])),
        "or": alpha * np.log(np.mean(np.exp(q / alpha), axis=0)),
    }  # fmt: skip
    best = finite.state_value(finite.optimal_q(composed, kernel, alpha), alpha).mean()
    span = best - worth(np.ones_like(composed))
    found = composition.measure(reward, kernel, alpha)
    for name, energy in energies.items():
        expected = (best - worth(finite.boltzmann(energy, alpha))) / span
        assert found[name][0] == pytest.approx(expected, rel=1e-6), name
    reverse = (best - worth(finite.boltzmann(least(q[2], least(q[1], q[0])), alpha))) / span
    assert abs(found["prefer"][0] - reverse) > 1e-3
