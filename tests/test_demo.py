import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

import pytest
from PIL import Image

import qompose
from qompose import demo, store
from qompose.cli import main
from qompose.evaluation import evaluate
from qompose.shipped import load
from qompose.tasks.pusher import Pusher
from qompose.training.offline import Extraction
from qompose.training.online import Training
from qompose.types import QomposeError
from qompose.view import stage, video
from qompose.view.graphics import Graphics

STEPS, EPISODES, SEED, HORIZON = 80, 3, 3, 20
TASKS = ("PushLeft", "PushBottom", "PushBottomLeft")
NAMES = ("push-left", "push-bottom", "push-bottom-left")


def make_tiny(patch):
    """Let a demonstration take seconds: short episodes, a warm-up and nothing after it, a small film."""
    for name in ("horizon", "training_horizon"):
        patch.setattr(Pusher, name, HORIZON)
    patch.setattr(demo, "POLL", 0.0)
    patch.setattr(demo, "REFIT_UPDATES", 3)
    patch.setattr(demo, "Training", partial(Training, warmup_steps=STEPS - 1))
    patch.setattr(demo, "Extraction", partial(Extraction, steps=10, batch_size=8, hidden=(16,)))
    patch.setattr(video, "record_many", partial(video.record_many, size=64, episode_steps=5))
    patch.setattr(stage, "probe_graphics", lambda: Graphics(None, "no driver", "install EGL"))


@pytest.fixture
def tiny(monkeypatch):
    make_tiny(monkeypatch)


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_flags):
    """A demonstration from beginning to end; the trainings run in this process, one after the other."""
    flags = list(tiny_flags)
    at = flags.index("--total-steps")
    del flags[at : at + 2]
    started = []

    def start(command, core, log, lock):
        started.append((command, core, log))
        os.fstat(lock)  # is open
        assert main([*command[4:], *flags, "--warmup-steps", str(STEPS - 1)]) == 0
        return subprocess.Popen([sys.executable, "-S", "-c", ""])

    folder, answer = tmp_path_factory.mktemp("demo") / "out", StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(answer):
        make_tiny(patch)
        patch.setattr(demo, "_start", start)
        patch.setattr(os, "sched_getaffinity", lambda _: {5, 3}, raising=False)
        numbers = ("--total-steps", str(STEPS), "--episodes", str(EPISODES), "--seed", str(SEED))
        assert main(["demo", "--output-dir", str(folder), *numbers, "--json"]) == 0
    printed = answer.getvalue()
    return {"folder": folder, "started": started, "answer": json.loads(printed[printed.index("{\n") :])}


@pytest.fixture
def report(done):
    return json.loads((done["folder"] / "report.json").read_text())


def test_everything_is_written_and_named_in_the_answer(done, report):
    folder = done["folder"]
    assert done["answer"] == {**report, "report": str(folder / "report.json")}
    assert report["picture"] == str(folder / "final_positions.png")
    with Image.open(report["picture"]) as picture:
        assert picture.width > 100
    assert report["video"] in (str(folder / "demo.mp4"), str(folder / "demo.gif"))
    assert os.path.getsize(report["video"]) > 1000


def test_the_report_has_the_figures_of_every_skill(tiny, done, report):
    assert [(entry["name"], entry["task"]) for entry in report["skills"]] == list(zip(NAMES, TASKS, strict=True))
    assert (report["episodes"], report["seed"], report["pretrained"]) == (EPISODES, SEED, False)
    for entry in report["skills"]:
        skill = load(done["folder"] / entry["name"])
        for mode in ("sample", "best"):
            evaluation = evaluate(skill, entry["task"], EPISODES, mode=mode, seed=SEED)
            expected, figures = evaluation.summary(), entry[mode]
            assert {name: figures[name] for name in ("mean", "std", "median")} == expected["distance"]
            assert figures["mean_position"] == [expected[name]["mean"] for name in ("puck_x", "puck_y")]
            assert figures["return"] == expected["return"]["mean"]
    assert [entry["paper"] for entry in report["skills"]] == [[0.13, 0.06], [0.08, 0.07], [0.11, 0.05]]


def test_the_report_says_what_the_skills_cost(done, report):
    left, bottom, composed = report["skills"]
    for entry in (left, bottom):
        facts = load(done["folder"] / entry["name"]).provenance
        assert (entry["environment_steps"], entry["training_episodes"]) == (STEPS, STEPS // HORIZON)
        assert entry["training_seconds"] == facts["seconds"] and facts["training"]["seed"] == SEED
    assert (composed["environment_steps"], composed["training_seconds"]) == (0, 0.0)
    assert load(done["folder"] / composed["name"]).provenance["extraction"]["seed"] == SEED
    assert list(report["seconds"]) == ["training", "refit", "extraction", "evaluation", "picture", "video"]
    assert all(report["seconds"][name] > 0.0 for name in ("training", "refit", "extraction", "evaluation"))
    assert "jax" in report["system"]["versions"]


def test_the_picture_shows_where_the_puck_ended(done, report):
    groups = json.loads((done["folder"] / "final_positions.json").read_text())["groups"]
    assert [group["label"].split(":")[0] for group in groups] == [*NAMES[:2], "push-bottom-left (composed)"]
    for group, entry in zip(groups, report["skills"], strict=True):
        assert group["mean"] == pytest.approx(entry["sample"]["mean_position"])


def test_each_training_has_a_core_and_a_log_of_its_own(done):
    (left, core, log), (bottom, other_core, other_log) = done["started"]
    assert left[:5] == bottom[:5] == [sys.executable, "-P", "-m", "qompose", "train"]
    assert (core, other_core) == (3, 5)
    assert (log.name, other_log.name) == ("push-left.log", "push-bottom.log")


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(demo, "_start", lambda *_: pytest.fail("a training began"))


def test_shipped_skills_are_not_trained_again(tiny, no_training, done, report, tmp_path, monkeypatch, capsys):
    skills = {name: done["folder"] / name / "skill" for name in NAMES[:2]}
    monkeypatch.setattr(demo, "shipped_skills", lambda: skills)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "push-left").mkdir()  # of the same name, where the user stands, and not meant
    (tmp_path / "push-left" / "manifest.json").write_text("{}")
    command = ["demo", "--pretrained", "--no-video", "--episodes", str(EPISODES), "--seed", str(SEED)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    again = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert again["pretrained"] and again["seconds"]["training"] == 0.0
    assert again["skills"][:2] == report["skills"][:2]
    names = [load(folder / NAMES[2]).composition["names"] for folder in (done["folder"], tmp_path / "demo")]
    assert names == [["push-left-refit", "push-bottom-refit"], ["push-left", "push-bottom"]]
    assert "refit" not in again["seconds"]
    assert "video" not in again and not list((tmp_path / "demo").glob("demo.*"))
    row = next(line for line in out.splitlines() if "in the paper" in line)
    assert [cell.strip() for cell in row.split("│")[2:5]] == ["0.13 ± 0.06", "0.08 ± 0.07", "0.11 ± 0.05"]
    row = next(line for line in out.splitlines() if "distance (m)" in line)
    for entry in again["skills"]:
        assert f" {entry['sample']['mean']:.3f} ± {entry['sample']['std']:.3f} " in row
    for words in (*NAMES, "picture: demo/final_positions.png", "report: demo/report.json"):
        assert words in out
    assert "video:" not in out


@pytest.mark.parametrize("names", [(), ("push-left",), ("push-bottom",)])
def test_shipped_skills_that_are_missing_are_named_in_one_line(no_training, refused, monkeypatch, tmp_path, names):
    monkeypatch.setattr(demo, "shipped_skills", lambda: dict.fromkeys(names, tmp_path))
    missing = next(name for name in NAMES if name not in names)
    message = refused("demo", "--pretrained", "--output-dir", tmp_path / "out")
    assert f"the shipped skill '{missing}' is missing; reinstall qompose or train without --pretrained" in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_refused_and_left_alone(no_training, refused, fingerprint, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "report.json").write_text("precious")
    before = fingerprint(tmp_path)
    message = refused("demo", "--output-dir", folder)
    assert message == f"qompose: {folder} holds other files; give another --output-dir\n"
    message = refused("demo", "--output-dir", folder / "report.json")
    assert f"{folder / 'report.json'}: " in message
    assert fingerprint(tmp_path) == before


def test_an_earlier_demonstration_is_replaced_and_nothing_beyond_it(tmp_path):
    folder, outside = tmp_path / "out", tmp_path / "outside"
    begin(folder)
    assert {path.name for path in folder.iterdir()} == {demo.MARKER, store.LOCK}
    (folder / "push-left" / "skill").mkdir(parents=True)
    (folder / "report.json").write_text("{}")
    outside.mkdir()
    (outside / "precious.txt").touch()
    (folder / "push-bottom").symlink_to(outside)
    for name in ("notes.txt", "report.pdf", "push-left.zip"):
        (folder / name).touch()
    (folder / "demo").mkdir()
    inode = folder.stat().st_ino
    begin(folder)
    kept = {demo.MARKER, store.LOCK, "notes.txt", "report.pdf", "push-left.zip", "demo"}
    assert {path.name for path in folder.iterdir()} == kept and folder.stat().st_ino == inode
    assert (outside / "precious.txt").exists()


def begin(folder):
    with demo._hold(folder):
        demo._prepare(folder)


def test_a_second_demonstration_in_the_same_folder_is_refused_and_clears_nothing(no_training, refused, tmp_path):
    (tmp_path / "out").mkdir()
    with demo._hold(tmp_path / "out"):
        (tmp_path / "out" / "report.json").write_text("{}")
        assert "another process is at work in" in refused("demo", "--output-dir", tmp_path / "out")
        assert (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--episodes", "0"], "episodes is 0; it must be at least 1"),
        (["--total-steps", "10"], "warmup_steps is 1000, so 10 steps leave nothing to learn"),
        (["--seed", "-1"], "seed is -1"),
    ],
)
def test_impossible_numbers_are_refused_before_the_earlier_demonstration_is_cleared(
    no_training, refused, fingerprint, tmp_path, flags, message
):
    begin(tmp_path / "out")
    (tmp_path / "out" / "report.json").write_text("{}")
    before = fingerprint(tmp_path)
    assert message in refused("demo", "--output-dir", tmp_path / "out", *flags)
    assert fingerprint(tmp_path) == before


@pytest.fixture
def workers(monkeypatch):
    """Workers that run the code given for them instead of a training."""
    codes, workers, start = [], [], demo._start

    def start_code(command, core, log, lock):
        workers.append(start([sys.executable, "-S", "-c", codes[len(workers)]], core, log, lock))
        return workers[-1]

    monkeypatch.setattr(demo, "POLL", 0.0)
    monkeypatch.setattr(demo, "_start", start_code)
    yield codes, workers
    assert all(worker.returncode is not None for worker in workers)


WAIT = "import signal; signal.alarm(20); signal.pause()"  # ends by itself, should nobody end it


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('begin'); print('qompose: no memory'); raise SystemExit(2)", "qompose: no memory"),
        ("raise SystemExit(3)", "exit status 3"),
    ],
)
def test_a_failing_training_is_one_line_and_stops_the_other(workers, refused, tmp_path, code, message):
    codes, processes = workers
    codes += [WAIT, code]
    assert refused("demo", "--output-dir", tmp_path / "out") == f"qompose: training PushBottom failed: {message}\n"
    assert processes[0].returncode == -signal.SIGTERM
    assert (tmp_path / "out" / "push-bottom.log").exists()


def test_an_interrupt_stops_the_trainings(workers, monkeypatch, tmp_path, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    codes, processes = workers
    codes += [WAIT, WAIT]
    monkeypatch.setattr(demo, "read_metrics", interrupt)
    assert main(["demo", "--output-dir", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "qompose: interrupted\n"
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_a_worker_is_kept_on_its_core(tmp_path):
    core = max(os.sched_getaffinity(0))
    with store.hold(tmp_path) as lock:
        worker = demo._start([sys.executable, "-S", "-c", WAIT], core, tmp_path / "log", lock)
    try:
        assert os.sched_getaffinity(worker.pid) == {core}
        with pytest.raises(QomposeError, match="another process is at work"), store.hold(tmp_path):
            pass  # the worker holds it still
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.slow
def test_the_command_trains_in_processes_of_their_own(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(qompose.__path__[0])}
    command = [sys.executable, "-m", "qompose", "demo", "--total-steps", "1200", "--episodes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert [entry["environment_steps"] for entry in report["skills"]] == [1200, 1200, 0]
    assert (tmp_path / "demo" / "push-left.log").exists() and (tmp_path / report["video"]).exists()
    assert "Traceback" not in done.stderr and "report: demo/report.json" in done.stdout


def test_the_figures_stay_where_the_film_fails(tiny, no_training, done, tmp_path, monkeypatch, capsys):
    skills = {name: done["folder"] / name / "skill" for name in NAMES[:2]}
    monkeypatch.setattr(demo, "shipped_skills", lambda: skills)

    def fail(*_, **__):
        assert json.loads((tmp_path / "out" / "report.json").read_text())["skills"]
        raise QomposeError("the disk is full")

    monkeypatch.setattr(video, "record_many", fail)
    assert main(["demo", "--pretrained", "--output-dir", str(tmp_path / "out"), "--episodes", "1"]) == 0
    out = capsys.readouterr().out
    assert "video: none: the disk is full" in out and "in the paper" in out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["video_note"] == "none: the disk is full" and "video" not in report
