"""Trainings with one thing changed: which flags they get, and what is set beside what."""

import numpy as np
import pytest

from benchmarks import measurements, variants
from benchmarks.machine import read_results
from qompose import store


def test_a_variant_has_the_flags_of_the_table_and_its_own_and_its_steps_are_those_of_the_study(tmp_path):
    longer = variants.study_of(tmp_path, "naf", "100 000 steps", 3)
    assert longer.total_steps == 100_000 and longer.settings == ()
    reaching = variants.study_of(tmp_path, "reach", "two, batches of 128", 3)
    updates, batch = ("--updates-per-step", "2"), ("--batch-size", "128")
    assert reaching.total_steps == 18_000 and reaching.settings == (*variants.fig4.DISCOUNT, *updates, *batch)
    few = variants.study_of(tmp_path, "particles", "a quarter of them", 3)
    assert few.total_steps == 60_000 and few.settings[:2] == ("--value-particles", "4") and len(few.settings) == 8
    folders = {
        variants.study_of(tmp_path, name, variant, 3).folder
        for name, question in variants.QUESTIONS.items() for variant in question.variants
    }  # fmt: skip
    assert len(folders) == sum(len(question.variants) for question in variants.QUESTIONS.values())


@pytest.mark.parametrize("name", variants.QUESTIONS)
def test_the_first_rows_are_those_of_the_table(name):
    question = variants.QUESTIONS[name]
    rows = variants.table_rows(name, 2)
    modes = 2 if question.algorithm == "sql" else 1
    policies = variants.policies_of(name)
    assert len(rows) == modes * len(policies) and {len(row["seeds"]) for row in rows} == {2}
    if name == "reach":
        table = [row for row in read_results("fig4")["result"]["rows"] if row["task"] == "SawyerReachRandom"]
        (sql,) = (row for row in table if row["algorithm"] == "sql")
        assert [row["seeds"] for row in rows] == [sql["seeds"][:2], sql["best"][:2]]
    else:
        wanted = [(task, task in question.merged) for task in policies]
        table = [row for row in read_results("table1")["result"]["rows"] if (row["task"], row["merged"]) in wanted]
        means = [row["seeds"][:2] for row in table if row["algorithm"] == question.algorithm]
        assert [row["seeds"] for row in rows] == means


@pytest.mark.parametrize("name", variants.QUESTIONS)
def test_each_question_has_a_section_that_shows_every_row(name):
    question = variants.QUESTIONS[name]
    rows = [
        {"variant": variant, "task": task, "mode": "sample", "seeds": [0.1234, 0.5678]}
        for variant in question.variants for task in variants.policies_of(name)
    ]  # fmt: skip
    page = measurements.SECTIONS[f"variants_{name}"]({"rows": rows, "steps": question.steps})
    for row in rows:
        assert f"| {row['variant']} | {row['task']} | sample | 0.346 | 0.123 0.568 |" in page
    assert f"variants_{name}.png" in page


def test_corners_are_composed_of_the_lines_and_of_nothing_else():
    cases = {task: variants.cases_of("lines", task, 2) for task in variants.policies_of("lines")}
    assert [[case.merged for case in each] for each in cases.values()] == [[False] * 2, [False] * 2, [True] * 2]
    left, bottom = (cases[task] for task in variants.QUESTIONS["lines"].tasks)
    assert [case.parts for case in cases["PushBottomLeft"]] == list(zip(left, bottom, strict=True))


def test_the_picture_has_a_panel_for_each_task_and_what_fig_4_says_beside_the_variants(tmp_path):
    curves = [[[10, 0.3], [20, 0.1]], [[10, 0.2], [20, 0.05]]]
    rows = [
        {"variant": "a", "task": "SawyerReachRandom", "mode": mode, "seeds": seeds, "curves": curves}
        for mode, seeds in (("sample", [0.01, 0.02]), ("best", [0.01, 0.03]))
    ]
    variants.draw(tmp_path / "a.png", "reach", {"rows": rows})
    numbers = store.read_json(tmp_path / "a.json")
    names = numbers["panels"]["SawyerReachRandom"]
    assert list(names) == ["as in the table", "a"] and names["a"] == curves
    assert (tmp_path / "a.png").stat().st_size > 10_000
    page = measurements.variants_reach({"rows": rows, "steps": 20})
    assert "Of the others, at most 20 mm in every seed: a (`sample`)." in page


def test_each_variant_is_summed_up_from_its_own_episodes(tmp_path):
    distances = np.random.default_rng(0).uniform(size=(3, 2, 2, 5))
    for i, variant in enumerate(variants.QUESTIONS["naf"].variants):
        study = variants.study_of(tmp_path, "naf", variant, 2)
        for j, task in enumerate(variants.QUESTIONS["naf"].tasks):
            for case in variants.cases_of("naf", task, 2):
                study.episodes_of(case).parent.mkdir(parents=True, exist_ok=True)
                found = {
                    "sample": {"distance": distances[i, j, case.seed].tolist()},
                    "seconds": 1.0,
                    "system": {"commit": "b"},
                    "trained_by": [{"commit": variant}],
                }
                store.write_json(study.episodes_of(case), found)
    result = variants.summarise(tmp_path, "naf", 2)
    np.testing.assert_allclose([row["seeds"] for row in result["rows"]], distances.mean(axis=-1).reshape(6, 2))
    assert [system["commit"] for system in result["runs_made_by"]] == [
        "100 000 steps",
        "b",
        "four updates a step",
        "noise 0.4",
    ]
    page = measurements.variants_naf(result)
    assert page.count("| as in the table | ") == 2
    assert f"| noise 0.4 | PushMiddle | sample | {distances[2, 1].mean():.3f} |" in page


def test_bottom_learns_from_what_left_of_the_same_seed_has_seen_and_waits_for_it(tmp_path):
    study = variants.study_of(tmp_path, "lines", "shared experience", 2)
    left, bottom = (variants.cases_of("lines", task, 2)[1] for task in variants.QUESTIONS["lines"].tasks)
    assert study.settings == () and study.total_steps == 60_000
    first, second = (variants.training_job(study, case, "PushLeft") for case in (left, bottom))
    assert first == study.training_job(left) and "--experience" not in first.arguments
    assert second.arguments[-2:] == ("--experience", str(study.run_of(left))) and second.needs == (first.file,)
    assert variants.training_job(study, bottom, None) == study.training_job(bottom)
