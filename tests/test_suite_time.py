"""Which tests count as those of the baselines, and what they add to the whole."""

from pathlib import Path

from benchmarks.suite_time import OTHERS, PARTS, part_of, summarise

TESTS = Path(__file__).parent


def test_every_module_that_is_counted_is_there():
    for modules in PARTS.values():
        for module in modules:
            assert (TESTS / f"{module.replace('.', '/')}.py").exists(), module


def test_seconds_are_added_up_by_part_and_shared_by_the_workers(tmp_path):
    cases = [
        ("tests.agents.test_naf", "test_a", 3.0), ("tests.agents.test_ddpg", "test_b", 1.5),
        ("tests.test_run", "test_c", 10.0), ("tests.test_run", "test_d[DDPG]", 0.5),
    ]  # fmt: skip
    lines = "".join(f'<testcase classname="{module}" name="{name}" time="{time}"/>' for module, name, time in cases)
    report = tmp_path / "report.xml"
    report.write_text(f'<testsuites><testsuite time="8.25">{lines}</testsuite></testsuites>')
    result = summarise(report)
    found = {row["part"]: (row["tests"], row["seconds"]) for row in result["rows"]}
    assert found["DDPG and NAF"] == (2, 4.5) and found[OTHERS] == (1, 0.5) and found["all"] == (4, 15.0)
    assert found["yardsticks"] == (0, 0.0) and result["added_seconds"] == {"own files": 2.2, "with others": 2.5}
    assert result["pytest_seconds"] == 8.25 and part_of("tests.test_run", "test_nothing") is None
