import json

import numpy as np
import pytest

from qompose.cli import main
from qompose.paper import composition
from qompose.soft import finite


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


def test_the_command_writes_figures_and_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(composition, "PROBLEMS", 2)
    monkeypatch.setattr(composition, "TEMPERATURES", (0.1, 1.0))
    monkeypatch.setattr(composition, "FAMILIES", ("lines", "random"))
    assert main(["reproduce", "composition", "--seeds", "1", "--output-dir", str(tmp_path / "out")]) == 0
    assert "corrected, 3" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "composition.json").read_text())
    assert len(record["result"]["rows"]) == 2 * 2 * 2 * len(composition.OPERATORS)
    assert (tmp_path / "out" / "composition_temperature.png").stat().st_size > 1000
