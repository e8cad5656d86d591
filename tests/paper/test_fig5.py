import json

import pytest

from qompose.cli import main
from qompose.paper import fig5, fig6, jobs
from qompose.paper.study import ALGORITHMS, Case, Study
from qompose.shipped import load
from qompose.store import write_json


def finish(study, case):
    """Make the run of a training as if it were done: it stacks at the second of three evaluations."""
    skill = study.run_of(case) / "skill"
    skill.mkdir(parents=True)
    (skill / "manifest.json").write_text("{}", encoding="utf-8")
    points = [(10, 0.2, 0.0), (30, 0.001, 0.5), (60, 0.002, 0.25)]
    lines = [{"step": step, "eval/distance": metres, "eval/success_rate": share} for step, metres, share in points]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (study.run_of(case) / "metrics.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study in which everything is finished: nothing may be started."""
    monkeypatch.setattr(jobs, "_start", lambda *_: pytest.fail("a job began"))
    for module in (fig5, fig6):
        monkeypatch.setattr(module, "expert_means", lambda task, *names: dict.fromkeys(names, 0.25))
    made = Study(tmp_path / "out", 2, 2000)
    made.open(fig5.SETTINGS)
    (made.folder / "episodes").mkdir()
    return made


@pytest.fixture
def stacked(study):
    for case in (Case(algorithm, fig5.TASK, seed) for algorithm in ALGORITHMS for seed in (0, 1)):
        finish(study, case)
        shares = {"undisturbed": [1, 1, 1, case.seed], "pushed, 10 N": [1, 0], "forced, 0.4 rad": [0, 0]}
        trials = {trial: {"success": shares[trial]} for trial in fig5.TRIALS}
        record = {**vars(case), "seconds": 1.0, "sample": trials, "best": trials, "system": {}, "trained_by": []}
        write_json(study.episodes_of(case), record)
    (study.folder / "fig5_stacking.mp4").write_bytes(b"a film that is there")
    return study


@pytest.fixture
def towers(study):
    for seed in (0, 1):
        for task in fig6.PARTS:
            finish(study, Case("sql", task, seed))
        for policy in fig6.POLICIES:
            both = {"success": [0, policy == "composed"], "seated": [1, 1], "collided": [1, 0], "distance": [0.0, 0.1],
                    "length": [160, 160]}  # fmt: skip
            record = {"policy": policy, "seed": seed, "system": {}, "trained_by": []}
            write_json(fig6._file(study, policy, seed), record | dict.fromkeys(fig6.POLICIES[policy], both))
    (study.folder / "fig6_tower.mp4").write_bytes(b"a film that is there")
    return study


def command(what, study, *more):
    return ["reproduce", what, "--output-dir", str(study.folder), "--seeds", "2", "--total-steps", "2000", *more]


def answer(words, capsys):
    assert main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    return json.loads(out[out.index("{\n") :])


def test_success_of_each_trial_and_the_first_of_all(stacked, capsys):
    rows = answer(command("fig5", stacked), capsys)["rows"]
    assert [row["algorithm"] for row in rows] == list(ALGORITHMS)
    assert rows[0]["success"]["best"] == {
        "undisturbed": [0.75, 1.0], "pushed, 10 N": [0.5, 0.5], "forced, 0.4 rad": [0.0, 0.0],
    }  # fmt: skip
    assert rows[0]["of_twenty"]["sample"] == [3, 4]
    assert "best" not in rows[1]["success"] and rows[2]["first_success"] == [30, 30]
    assert (stacked.folder / "fig5_stacking.png").stat().st_size > 10_000
    result = json.loads((stacked.folder / "fig5.json").read_text())["result"]
    assert result["episodes"]["undisturbed"] == 100 and result["expert"] == {"distance": 0.25, "success": 0.25}
    assert result["seconds"] == {"undisturbed": 8.0, "pushed, 10 N": 10.0, "forced, 0.4 rad": 12.0}
    drawn = json.loads((stacked.folder / "fig5_stacking.json").read_text())
    assert drawn["levels"][fig5.TITLE] == {"scripted expert": 0.25}


def test_what_happens_at_the_tower(towers, capsys):
    rows = answer(command("fig6", towers), capsys)["rows"]
    assert [(row["policy"], row["mode"]) for row in rows] == [
        (p, m) for p, modes in fig6.POLICIES.items() for m in modes
    ]
    composed = rows[4]
    assert composed["success"] == [0.5, 0.5] and composed["collided"] == [0.5, 0.5] and composed["paper"] == [1.0, 0.0]
    assert rows[0]["success"] == [0.0, 0.0]
    assert (towers.folder / "fig6_tower.png").stat().st_size > 5_000


@pytest.mark.parametrize("what", ["fig5", "fig6"])
def test_the_tables_fit_80_columns(request, what, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = request.getfixturevalue({"fig5": "stacked", "fig6": "towers"}[what])
    assert main(command(what, done)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-3])) <= 80 and not any("…" in line for line in lines)


def test_each_algorithm_is_trained_with_its_own_flags(study):
    for algorithm in ALGORITHMS:
        job = fig5.with_settings(study, algorithm).training_job(Case(algorithm, fig5.TASK, 0))
        flags = fig5.SETTINGS[algorithm]
        assert job.arguments[-len(flags) :] == flags
    case = Case("sql", fig5.TASK, 0)
    assert study.training_job(case).arguments[-2:] == ("--output-dir", str(study.run_of(case)))


def test_an_episode_goes_on_for_eight_seconds_after_it_is_disturbed(study, monkeypatch):
    lengths = []
    monkeypatch.setattr(fig5, "load", lambda run: load("sawyer-stack", replay=False))
    monkeypatch.setattr(
        fig5, "TRIALS", {name: (options, 1, steps) for name, (options, _, steps) in fig5.TRIALS.items()}
    )
    monkeypatch.setattr(fig5, "figures_of", lambda result, *_: lengths.append(result.values("length").tolist()))
    monkeypatch.setattr(Study, "write_episodes", lambda *_: None)
    fig5.measure(study, Case("sql", fig5.TASK, 0))
    assert lengths == [[160], [200], [240]] * 2


def test_each_policy_at_the_tower_is_what_it_is_called(monkeypatch, tmp_path, tiny_skills):
    parts = dict(zip(fig6.PARTS, tiny_skills.values(), strict=True))
    stack, avoid = parts.values()
    study, given = Study(tmp_path, 4, 2000), []

    def compose(expression, **how):
        given.append((repr(expression), how["extract"], how["correct"], how["extraction"].seed, how["correction"].seed))
        return avoid

    monkeypatch.setattr(fig6, "compose", compose)
    monkeypatch.setattr(fig6, "load", {study.run_of(Case("sql", task, 3)): skill for task, skill in parts.items()}.get)
    made = {policy: fig6.make_policy(study, policy, 3) for policy in fig6.POLICIES}
    assert made["stack"] is stack and made["avoid"] is avoid
    plain, heavy = f"{stack.name} & {avoid.name}", f"{stack.name} & 3*{avoid.name}"
    composed = [policy for policy in fig6.POLICIES if policy not in ("stack", "avoid")]
    assert dict(zip(composed, given, strict=True)) == {
        "composed": (plain, False, False, 3, 3), "composed 1:3": (heavy, False, False, 3, 3),
        "extracted": (plain, True, False, 3, 3), "extracted 1:3": (heavy, True, False, 3, 3),
        "corrected": (plain, True, True, 3, 3),
    }  # fmt: skip
