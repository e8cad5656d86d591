import os
import signal
import subprocess
import sys
import time

import pytest

from qompose import store
from qompose.paper import jobs
from qompose.paper.jobs import Job, run_jobs
from qompose.types import QomposeError

# What a worker does: write where it ran and when, or fail, or wait.
FAKE = """
import os, signal, sys, time
what, path = sys.argv[1:]
if what == "write":
    begin = time.time()
    time.sleep(0.3)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with open(path + ".new", "w") as file:
        print(*cores, begin, time.time(), file=file)
    os.replace(path + ".new", path)
elif what == "wait":
    signal.signal(signal.SIGINT, lambda *_: sys.exit("saved"))
    signal.alarm(60)  # ends by itself, should nobody end it
    open(path + ".ready", "w").close()
    while True:
        signal.pause()
elif what == "fail":
    print("begin")
    print("qompose: no memory")
    sys.exit(2)
"""


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A job of the fake worker, which lies where python -m looks first: in the current folder."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "POLL", 0.02)

    def make(name, what="write", needs=()):
        path = tmp_path / f"{name}.txt"
        return Job(name, ("fake", what, str(path)), path, tuple(tmp_path / f"{need}.txt" for need in needs))

    return make


@pytest.fixture
def two_cores(monkeypatch):
    """Two slots, whatever the machine has."""
    there = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(jobs, "choose_cores", lambda workers: [there[0], there[-1]][: workers or 2])
    return there


def test_only_what_is_not_done_is_run(job, tmp_path):
    done, new = job("done"), job("new")
    done.file.write_text("precious")
    run_jobs([done, new], tmp_path / "logs", label="runs", workers=1)
    assert done.file.read_text() == "precious" and new.file.exists()
    assert sorted(path.name for path in (tmp_path / "logs").glob("*.log")) == ["new.log"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_every_process_has_one_core_and_those_side_by_side_have_different_ones(job, two_cores, tmp_path):
    if len(two_cores) < 2:
        pytest.skip("one core")
    run_jobs([job("a"), job("b"), job("c")], tmp_path / "logs", label="runs")
    ran = [[float(word) for word in (tmp_path / f"{name}.txt").read_text().split()] for name in "abc"]
    assert all(len(words) == 3 for words in ran)  # one core, begin and end
    for index, (core, begin, end) in enumerate(ran):
        for other, other_begin, other_end in ran[index + 1 :]:
            assert core != other or end <= other_begin or other_end <= begin


def test_a_job_begins_when_what_it_needs_is_there(job, tmp_path):
    run_jobs([job("last", needs=["first"]), job("first")], tmp_path / "logs", label="runs", workers=1)
    first, last = ((tmp_path / f"{name}.txt").read_text().split() for name in ("first", "last"))
    assert float(first[-1]) <= float(last[-2])


def test_a_job_that_fails_is_named_with_its_last_words_and_stops_no_other(job, tmp_path):
    work = [job("bad", "fail"), job("never", needs=["bad"]), job("good")]
    with pytest.raises(QomposeError) as caught:
        run_jobs(work, tmp_path / "logs", label="runs", workers=1)
    logs = tmp_path / "logs"
    assert str(caught.value) == f"bad failed: qompose: no memory; what is finished is kept, the logs are in {logs}"
    assert work[2].file.exists() and not work[1].file.exists()
    assert (logs / "bad.log").read_text() == "begin\nqompose: no memory\n"


def test_a_job_without_its_file_has_failed_whatever_it_says(job, tmp_path):
    work = [job("a", "nothing"), job("b", "nothing")]
    with pytest.raises(QomposeError, match=r"^a failed: exit status 0 \(and 1 more\)"):
        run_jobs(work, tmp_path / "logs", label="runs", workers=1)


def test_an_interrupt_lets_the_processes_save_before_they_end(job, two_cores, monkeypatch, tmp_path):
    work, started, start = [job("a", "wait"), job("b", "wait")], [], jobs._start

    def begin(*arguments):
        started.append(start(*arguments))
        return started[-1]

    def interrupt(seconds):
        if all((tmp_path / f"{name}.txt.ready").exists() for name in "ab"):
            monkeypatch.setattr(jobs.time, "sleep", sleep)
            raise KeyboardInterrupt
        sleep(seconds)

    sleep = time.sleep
    monkeypatch.setattr(jobs, "_start", begin)
    monkeypatch.setattr(jobs, "GRACE", 0.0)
    monkeypatch.setattr(jobs.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(work, tmp_path / "logs", label="runs")
    assert [process.returncode for process in started] == [1, 1]
    assert [(tmp_path / "logs" / f"{name}.log").read_text() for name in "ab"] == ["saved\n"] * 2


def test_processes_that_end_by_themselves_get_no_second_interrupt():
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(0.2)"])
    jobs._stop([process])
    assert process.returncode == 0


def test_a_process_that_does_not_listen_is_killed(monkeypatch):
    monkeypatch.setattr(jobs, "GRACE", 0.0)
    monkeypatch.setattr(jobs, "PATIENCE", 0.1)
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); signal.alarm(60); print(flush=True)\n"
    code += "while True: signal.pause()"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
    with process.stdout:
        assert process.stdout.readline()
        jobs._stop([process])
    assert process.returncode == -signal.SIGKILL


def test_nobody_else_works_in_the_same_folder_not_even_beside_a_worker_that_was_left(job, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    left = job("left", "wait")
    with store.hold(logs, tmp_path) as lock:
        process = jobs._start(left, min(os.sched_getaffinity(0)), logs / "left.log", lock)
    try:
        with pytest.raises(QomposeError, match=f"another process is at work in {tmp_path}; wait for it, or end it"):
            run_jobs([job("new")], logs, label="runs", workers=1)
        assert not job("new").file.exists()
    finally:
        process.kill()
        process.wait()
    run_jobs([job("new")], logs, label="runs", workers=1)
    assert job("new").file.exists()


@pytest.mark.parametrize("workers", [0, -1, 10**6])
def test_workers_that_there_are_no_cores_for_are_refused(tmp_path, workers):
    with pytest.raises(QomposeError, match=rf"workers is {workers}; give 1 to \d+, as many as there are cores"):
        run_jobs([], tmp_path / "logs", label="runs", workers=workers)
    assert not (tmp_path / "logs").exists()


def test_the_share_of_a_training_is_read_from_its_metrics(tmp_path):
    training = Job("a", (), tmp_path / "file", run=tmp_path, total_steps=200)
    assert training.share == 0.0
    (tmp_path / "metrics.jsonl").write_text('{"step": 50}\n{"step": 100}\n')
    assert training.share == 0.5
    (tmp_path / "metrics.jsonl").write_text('{"step": 204}\n')
    assert training.share == 0.99  # its skill is not written yet
    (tmp_path / "file").touch()
    assert training.share == 1.0


@pytest.mark.parametrize(("module", "safe"), [("qompose.paper.study", True), ("benchmarks.refit", False)])
def test_nothing_is_imported_from_where_the_user_stands_unless_the_job_lies_there(module, safe, monkeypatch, tmp_path):
    started = []

    class Process(subprocess.Popen):
        pid, returncode = os.getpid(), 0

        def __init__(self, command, **_):
            started.append(command)
            (tmp_path / "file").touch()

        def poll(self):
            return 0

        def __del__(self):
            """There is no process to wait for."""

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(jobs, "POLL", 0.0)
    if hasattr(os, "sched_setaffinity"):
        monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    run_jobs([Job("a", (module, "x"), tmp_path / "file")], tmp_path / "logs", label="jobs", workers=1)
    assert started == [[sys.executable, *(["-P"] if safe else []), "-m", module, "x"]]
