"""The comparison with other libraries, without them: arguments, resuming, sums, and what is said without them."""

import math
import shutil
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import peers, yardstick_run, yardsticks
from benchmarks.foreign import command_of
from benchmarks.yardstick_run import Case
from qompose.agents.sql import SQL
from qompose.paper import fig4
from qompose.store import read_json, write_json
from qompose.tasks.pusher import Pusher
from qompose.types import QomposeError

NOWHERE = "no/such/python"


def curve(*distances):
    return [
        {"step": 100 * k, "seconds": 2.0 * k, "clock": 3.0 * k, "distance": distance}
        for k, distance in enumerate(distances, 1)
    ]


def run(entrant, seed, *distances, task="PushLeft", total_steps=3000):
    final = {"policy": {"mean": distances[-1]}, **({"best": {"mean": 0.01}} if "sql" in entrant else {})}
    system = {"versions": {"python of": entrant.split("-")[0]}}
    case = Case(entrant, task, seed, total_steps)
    return {**asdict(case), "curve": curve(*distances), "final": final, "system": system}


@pytest.fixture
def finished(tmp_path):
    """The runs folder of a quick benchmark in which everything is done."""
    for task in yardsticks.PUSHING:
        for entrant in yardsticks.ENTRANTS:
            case = Case(entrant, task, 0, 3000)
            file = yardsticks.file_of(tmp_path / "runs-quick", case)
            file.parent.mkdir(parents=True)
            write_json(file, run(entrant, 0, 0.9, 0.05, task=task))
    return tmp_path / "runs"


def quick(folder, *more):
    yardsticks.main(["--quick", "--runs-dir", str(folder), "--python", NOWHERE, *more])


@pytest.mark.parametrize("words", [["--tasks", "SawyerReach"], ["--reach", "--tasks", "PushLeft"]])
def test_the_hand_and_the_pusher_are_not_mixed(words, tmp_path):
    with pytest.raises(SystemExit, match=r"^yardsticks: the tasks are .*; Sawyer's hand has .*--reach$"):
        yardsticks.main([*words, "--runs-dir", str(tmp_path / "runs")])


def test_all_discount_what_is_soon_over_as_fig_4_does():
    discounts = {task: str(yardstick_run.discount_of(f"{task}-v0")) for task in yardsticks.BARS}
    assert discounts == {"PushLeft": "0.99", "PushBottom": "0.99", "SawyerReach": fig4.DISCOUNT[1]}
    assert yardstick_run.discount_of("HalfCheetah-v5") == yardstick_run.DISCOUNT


def test_a_finished_benchmark_is_summed_up_without_running_anything(finished, monkeypatch):
    monkeypatch.setattr(yardsticks, "write_results", None)  # a quick benchmark must not touch results/
    quick(finished)
    written = read_json(finished.with_name("runs-quick") / "yardsticks.json")
    assert len(written["rows"]) == len(yardsticks.ENTRANTS) * len(yardsticks.PUSHING)
    assert [system["versions"]["python of"] for system in written["runs_made_by"]] == ["qompose", "sb3", "sbx"]
    assert (finished.with_name("runs-quick") / "yardsticks.png").stat().st_size > 10_000


def test_what_is_missing_is_run_and_nothing_else(finished, monkeypatch):
    file = yardsticks.file_of(finished.with_name("runs-quick"), Case("qompose-naf-2", "PushBottom", 0, 3000))
    made = read_json(file)
    file.unlink()
    begun = []

    def run_jobs(jobs, *_, **__):
        begun.extend(job for job in jobs if not job.file.exists())
        write_json(file, made)

    monkeypatch.setattr(yardsticks, "run_jobs", run_jobs)
    quick(finished)
    assert [job.file for job in begun] == [file]


def test_a_missing_environment_is_said_in_one_line(finished):
    yardsticks.file_of(finished.with_name("runs-quick"), Case("sbx-sac-2", "PushLeft", 0, 3000)).unlink()
    with pytest.raises(SystemExit, match=r"^yardsticks: .*no/such/python.*make yardsticks.*$"):
        quick(finished)
    with pytest.raises(SystemExit, match=r"^yardsticks: .*no/such/python.*make yardsticks.*$"):
        yardsticks.main(["--speed", "--python", NOWHERE])


def test_an_environment_without_a_library_is_said_in_one_line(finished):
    """The Python of the tests has no Stable-Baselines3."""
    yardsticks.file_of(finished.with_name("runs-quick"), Case("sbx-sac-2", "PushLeft", 0, 3000)).unlink()
    with pytest.raises(SystemExit, match=r"^yardsticks: .* has no stable-baselines3: set it up .*$"):
        quick(finished, "--python", sys.executable)


def test_runs_of_another_length_are_refused(finished):
    file = yardsticks.file_of(finished.with_name("runs-quick"), Case("sbx-sac-2", "PushLeft", 0, 3000))
    write_json(file, run("sbx-sac-2", 0, 0.5, total_steps=2000))
    with pytest.raises(SystemExit, match=r"^yardsticks: .* has 2000 steps, not 3000; give another --runs-dir$"):
        quick(finished)


def test_runs_by_the_clock_are_refused(finished):
    file = yardsticks.file_of(finished.with_name("runs-quick"), Case("sbx-sac-2", "PushLeft", 0, 3000))
    before = run("sbx-sac-2", 0, 0.5)
    del before["curve"][0]["clock"]
    write_json(file, before)
    with pytest.raises(SystemExit, match=r"^yardsticks: .* has seconds of the clock, .*; give another --runs-dir$"):
        quick(finished)


def test_seeds_are_added_to_those_of_the_results(tmp_path, monkeypatch):
    """What another machine has published is taken as it is, and keeps what made it; only the rest is trained."""
    held, trained, begun = {"runs": [], "runs_made_by": []}, tmp_path / "runs", []

    def run_jobs(jobs, *_, **__):
        for job in jobs:
            if not job.file.exists():
                entrant, task, seed = job.name.rsplit("-", 2)
                begun.append(job.name)
                job.file.parent.mkdir(parents=True)
                write_json(job.file, run(entrant, int(seed[1:]), 0.9, 0.2 - 0.1 * int(seed[1:]), task=task))

    monkeypatch.setattr(yardsticks, "run_jobs", run_jobs)
    monkeypatch.setattr(yardsticks, "check_python", lambda python: None)
    monkeypatch.setattr(yardsticks, "draw_curves", lambda path, runs: None)
    monkeypatch.setattr(yardsticks, "read_results", lambda name: {"result": held})
    monkeypatch.setattr(yardsticks, "write_results", lambda name, result, **_: held.update(result))
    words = ["--runs-dir", str(trained), "--total-steps", "3000", "--tasks", "PushLeft"]
    words += ["--entrants", "qompose-sql-2", "sbx-sac-1", "--seeds"]
    yardsticks.main([*words, "1"])
    first = [{**run, "made_by": held["runs_made_by"][run["made_by"]]} for run in held["runs"]]
    assert begun == ["qompose-sql-2-PushLeft-s0", "sbx-sac-1-PushLeft-s0"]
    shutil.rmtree(trained)
    del begun[:]
    yardsticks.main([*words, "2", "--extend"])
    assert begun == ["qompose-sql-2-PushLeft-s1", "sbx-sac-1-PushLeft-s1"]
    assert [{**run, "made_by": held["runs_made_by"][run["made_by"]]} for run in held["runs"]][:2] == first
    assert [row["final"] for row in held["rows"]] == [[0.2, 0.1], [0.2, 0.1]]


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--total-steps", "1000"]])
def test_impossible_numbers_are_refused_in_one_line(words, tmp_path):
    with pytest.raises(SystemExit, match=r"^yardsticks: give at least 1 seed .*$"):
        yardsticks.main([*words, "--runs-dir", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [["--entrants", "sb3-ppo-1"], ["--tasks", "PushMiddle"]])
def test_unknown_names_are_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        yardsticks.parse(words)
    assert "invalid choice" in capsys.readouterr().err


def test_only_the_others_run_in_their_own_environment():
    assert command_of("qompose-sql-2", "their/python", ["train"]) == ("benchmarks.yardstick_run", "train")
    assert command_of("sb3-sac-1", "their/python", ["train"])[1:3] == ("in", "their/python")


def test_the_bar_is_reached_at_the_first_evaluation_at_or_below_it():
    line = curve(0.5, 0.1, 0.3)
    assert yardsticks.reached(line, 0.1, "step") == 200
    assert yardsticks.reached(line, 0.1, "seconds") == 4.0
    assert yardsticks.reached(line, 0.09, "step") is None


def test_never_is_later_than_everything_in_a_median():
    assert yardsticks.median_or_never([100, None, 300]) == 300
    assert yardsticks.median_or_never([100, None, None]) is None
    assert yardsticks.median_or_never([100, None]) is None


def test_the_summary_counts_seeds_that_never_reach_the_bar():
    runs = [run("sb3-sac-1", 0, 0.5, 0.08), run("sb3-sac-1", 1, 0.5, 0.2), run("sb3-sac-1", 2, 0.1, 0.05)]
    (row,) = yardsticks.summarise(runs)
    assert (row["steps_to_bar"], row["reached_by"], row["median_steps_to_bar"]) == ([200, None, 100], 2, 200)
    assert row["mean"] == pytest.approx(0.11)
    # By hand: deviation 0.0794 over 3 seeds, Student's t 4.303 with 2 degrees of freedom.
    assert row["interval"] == pytest.approx(4.303 * np.std([0.08, 0.2, 0.05], ddof=1) / math.sqrt(3), rel=1e-3)
    assert "best" not in row


def test_one_seed_has_no_interval():
    (row,) = yardsticks.summarise([run("qompose-sql-2", 0, 0.5)])
    assert row["interval"] is None
    assert row["best"]["mean"] == pytest.approx(0.01)


def test_the_better_rival_is_the_one_that_gets_there_sooner():
    rows = yardsticks.summarise([
        run("qompose-sql-2", 0, 0.08), run("sbx-ddpg-2", 0, 0.0), run("sb3-sac-1", 0, 0.9),
        run("sbx-sac-2", 0, 0.9, 0.1),
        run("qompose-sql-2", 0, 0.03, task="PushBottom"), run("sb3-sac-1", 0, 0.9, task="PushBottom"),
    ])  # fmt: skip
    left, bottom = (row["median_steps_to_bar"] for row in yardsticks.compare(rows))
    assert (left["rival"], left["ratio"]) == ("sbx-sac-2", 0.5)
    assert bottom == {"sql": 100, "rival": None, "of_rival": None, "ratio": None}


def test_the_clock_stands_still_while_judging(monkeypatch, tmp_path):
    """A learner that takes 1 s for each step, half of it on the processor, and a judge that takes an hour."""
    now = SimpleNamespace(seconds=0.0)

    class Learner:
        step = 0

        def advance(self, until):
            now.seconds += until - self.step
            self.step = until

        def policy(self):
            now.seconds += 3600.0
            return lambda observations, step: np.zeros((len(observations), 3))

        def best(self, seed):
            return None

    monkeypatch.setattr(Pusher, "horizon", 3)
    for name, value in (("LANES", 2), ("EPISODES", 2), ("FINAL_EPISODES", 3), ("CLOSEST", 10)):
        monkeypatch.setattr(yardstick_run, name, value)
    monkeypatch.setattr(yardstick_run, "make_learner", lambda *_: Learner())
    monkeypatch.setattr(yardstick_run.time, "perf_counter", lambda: now.seconds)
    monkeypatch.setattr(yardstick_run.time, "process_time", lambda: 0.5 * now.seconds)
    file = tmp_path / "run" / "result.json"
    yardstick_run.main(["train", "sb3-sac-1", "PushLeft", "7", "25", str(file)])
    found = read_json(file)
    when = [(point["step"], point["seconds"], point["clock"]) for point in found["curve"]]
    assert when == [(12, 6.0, 12.0), (25, 12.5, 25.0)]
    assert list(found["final"]) == ["policy"]
    assert found["final"]["policy"]["mean"] > 0.1


def test_ratios_are_medians_of_rounds():
    rates = {"qompose-ddpg-1": [10.0, 40.0, 30.0], "sb3-ddpg-1": [1.0, 2.0, 10.0]}
    assert peers.compare(rates) == {"qompose-ddpg-1": {"sb3-ddpg-1": 10.0}}


SERVER = """
import sys
if sys.argv[1] == "fails":
    sys.exit("no memory")
print("ready", flush=True)
for line in sys.stdin:
    print(int(line) / float(sys.argv[1]), int(line), flush=True)
"""


def test_entrants_take_turns_and_one_that_ends_is_named(monkeypatch, tmp_path):
    (tmp_path / "fake.py").write_text(SERVER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peers, "command_of", lambda entrant, python, words: ("fake", entrant))
    busy, clock = peers.alternate(["4", "8"], "Any-v0", None, 2, 100)
    assert busy == {"4": [4.0, 4.0], "8": [8.0, 8.0]} and clock == {"4": [1.0, 1.0], "8": [1.0, 1.0]}
    with pytest.raises(QomposeError, match=r"^fails has ended with status 1; its last words are above$"):
        peers.alternate(["4", "fails"], "Any-v0", None, 2, 100)


def test_the_bars_need_our_ddpg_in_the_interval_and_half_of_what_the_better_sac_needs():
    def spread_of(*finals, entrant, task="PushLeft"):
        (row,) = yardsticks.summarise([run(entrant, seed, x, task=task) for seed, x in enumerate(finals)])
        return row

    theirs = spread_of(0.2, 0.3, entrant="sb3-ddpg-1")
    inside, outside = (spread_of(x, x, entrant="qompose-ddpg-2") for x in (0.85, 0.95))  # 0.25 and 12.7 · 0.05
    assert list(yardsticks.judge([theirs, inside]).values()) == [True]
    assert list(yardsticks.judge([theirs, outside]).values()) == [False]
    assert yardsticks.judge([theirs]) == {}
    rival = spread_of(0.05, 0.05, entrant="sbx-sac-1") | {"median_steps_to_bar": 200, "median_seconds_to_bar": 4.0}
    soon = spread_of(0.05, 0.05, entrant="qompose-sql-2") | {"median_steps_to_bar": 100, "median_seconds_to_bar": 4.0}
    never = soon | {"median_steps_to_bar": None, "median_seconds_to_bar": None}
    assert list(yardsticks.judge([soon, rival]).values()) == [True, False]
    assert list(yardsticks.judge([never, rival]).values()) == [False, False]
    lost = rival | {"median_steps_to_bar": None, "median_seconds_to_bar": None}
    assert list(yardsticks.judge([soon, lost]).values()) == [True, True]
    words = next(iter(yardsticks.judge([soon, lost])))
    assert words == "PushLeft: half the steps of sbx-sac-1 to the bar (theirs: never in the median; sb3-sac not run)"
    assert list(yardsticks.judge([never, lost]).values()) == [False, False]
    assert yardsticks.judge([soon]) == {}


def test_soft_q_learning_with_fewer_particles_is_compared_like_it(tmp_path):
    runs = [
        run("qompose-sql-2", 0, 0.08, 0.05), run("qompose-quartersql-2", 0, 0.9, 0.09), run("sbx-sac-1", 0, 0.9, 0.1),
    ]  # fmt: skip
    rows = yardsticks.summarise(runs)
    assert [(found["entrant"], found["median_steps_to_bar"]["ratio"]) for found in yardsticks.compare(rows)] == [
        ("qompose-sql-2", 0.5), ("qompose-quartersql-2", 1.0),
    ]  # fmt: skip
    bars = yardsticks.judge(rows)
    assert bars["PushLeft: half the steps of sbx-sac-1 to the bar (0.50 of them; sb3-sac not run)"]
    words = "PushLeft, qompose-quartersql-2: half the steps of sbx-sac-1 to the bar (1.00 of them; sb3-sac not run)"
    assert not bars[words]
    yardsticks.draw_curves(tmp_path / "curves.png", runs)
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(("algorithm", "share"), [("sql", 1), ("halfsql", 2), ("quartersql", 4)])
def test_an_entrant_has_its_share_of_the_particles(algorithm, share):
    learner = yardstick_run.Ours(yardstick_run.Entrant("qompose", algorithm, 2), "PushLeft-v0", 0, 2000, None)
    agent, whole = learner.loop.agent, SQL()
    for name in yardstick_run.FEWER["halfsql"]:
        assert getattr(agent, name) == getattr(whole, name) // share
    learner.env.close()
