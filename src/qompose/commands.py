"""The commands behind the command line: one function each, its parameters are the flags, its docstring the help.

A command returns what `--json` prints, or None after it has printed for people.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import inspect
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_type_hints

import tyro

from qompose.envs.watchdog import PATIENCE
from qompose.evaluation import choose_task, evaluate
from qompose.shipped import find_skill, load, shipped_skills
from qompose.skill.artifact import Skill, check_place
from qompose.skill.expression import Expression, from_weights, gpi, spell_sum, title_of
from qompose.skill.notation import read_expression
from qompose.store import parse_json
from qompose.tasks import task_named
from qompose.training.correct import Correction
from qompose.training.offline import Extraction
from qompose.training.online import Training
from qompose.training.session import ALGORITHMS, SKILL, Agent, skill_name
from qompose.training.start import agent_of
from qompose.types import QomposeError
from qompose.view.console import bars, print_table

Paths = tyro.conf.Positional[tuple[str, ...]]
Mode = Literal["sample", "resample", "best"]
# A switch that is off unless given; other booleans come as --x and --no-x.
Switch = tyro.conf.FlagCreatePairsOff[bool]


def train(
    training: Training,
    agent: Agent,
    env: str = "PushLeft",
    algo: Literal["sql", "ddpg", "naf"] = "sql",
    start: str | None = None,
    experience: tuple[str, ...] = (),
    output_dir: Path | None = None,
    name: str | None = None,
    goal_x: float | None = None,
    goal_y: float | None = None,
    env_option: tuple[str, ...] = (),
    resume: Switch = False,
    env_timeout: float = PATIENCE,
    track: Literal["none", "tensorboard"] = "tensorboard",
    progress: Literal["bar", "none"] = "bar",
    json: Switch = False,
) -> dict[str, Any] | None:
    """Train a skill.

    Args:
        training: How long and how often.
        agent: Hyperparameters of the algorithm.
        env: A task (see `qompose list`) or any Gymnasium id, also `module:Id-v0`.
        algo: The algorithm: soft Q-learning, DDPG or NAF. `--algo NAME --help` lists its hyperparameters.
        start: A skill of sql, composed or not, whose Q, policy and experience the training begins with; the
            hyperparameters are by default its own.
        experience: Skills from whose replays it learns as well, with the rewards of its own task.
        output_dir: Where metrics, checkpoints and the skill go; runs/NAME-sSEED unless given.
        name: Name of the skill; its task's unless given, with the goal of PushTo.
        goal_x: For PushTo: push the puck to this x, in metres.
        goal_y: For PushTo: push the puck to this y, in metres.
        env_option: Further options of the environment, as key=value.
        resume: Continue the run in output_dir from its latest checkpoint.
        env_timeout: Seconds that somebody else's environment may take to be made, or for one step of all lanes.
        track: Where to write curves besides metrics.jsonl.
        progress: Show a progress bar.
        json: Print the answer as JSON.
    """
    from qompose.training import session

    options = _env_options(env_option, goal_x=goal_x, goal_y=goal_y)
    called = name or skill_name(env, options)
    directory = output_dir or Path("runs") / f"{called}-s{training.seed}"
    with bars(progress == "bar") as shown:
        skill = session.train(
            env, algo=algo, agent=agent, start=None if start is None else load(start),
            experience=[load(path) for path in experience], training=training, options=options,
            output_dir=directory, name=name, resume=resume, env_timeout=env_timeout,
            track=track == "tensorboard",
            on_progress=lambda p: shown.update(called, p.step, p.total, p.figures),
            on_notice=lambda text: print(text, file=sys.stderr),
        )  # fmt: skip
    answer = {"skill": str(directory / SKILL), "run": str(directory), "results": skill.provenance.get("results")}
    if json:
        return answer
    print(f"skill saved in {answer['skill']}")
    said: list[str] = []  # what counts only if the user says it: see `choose_task`
    if task_named(env) is None and (":" in env or options):
        said = ["--env", env]
        for name, value in (("goal-x", goal_x), ("goal-y", goal_y)):
            said += [] if value is None else [f"--{name}", str(value)]
        said += ["--env-option", *env_option] if env_option else []
    said += [] if env_timeout == PATIENCE else ["--env-timeout", f"{env_timeout:g}"]
    print(f"try it: {shlex.join(['qompose', 'eval', str(directory), *said])}")
    return None


def choose_train(arguments: list[str]) -> Callable[..., Any]:
    """`train` with the hyperparameters of the algorithm of `--algo` as its flags, those of `--start` as defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--algo", nargs="?")
    parser.add_argument("--start", nargs="?")
    early = parser.parse_known_args(arguments)[0]

    def chosen(*args: Any, **kwargs: Any) -> Any:
        return train(*args, **kwargs)

    functools.update_wrapper(chosen, train)
    signature = inspect.signature(train)
    if early.start and early.algo in (None, "sql"):
        own = agent_of(load(early.start, replay=False))
        parameters = {**signature.parameters, "agent": signature.parameters["agent"].replace(default=own)}
        # A parameter with a default may not stand before one without: by name only.
        by_name = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters.values()]
        signature = signature.replace(parameters=by_name)
    vars(chosen)["__signature__"] = signature
    # An unknown name gets the flags of the default; that the name is unknown is said when all flags are read.
    hints = get_type_hints(train, include_extras=True)
    chosen.__annotations__ = hints | {"agent": ALGORITHMS.get(early.algo or "sql", ALGORITHMS["sql"])}
    del chosen.__wrapped__
    return chosen


def refit(
    skills: Paths,
    updates: int = 20_000,
    seed: int = 0,
    output_dir: Path = Path("skills"),
    overwrite: Switch = False,
    json: Switch = False,
) -> dict[str, Any] | None:
    """Let skills learn on, each its own task, from what all of them have seen; without an environment.

    Args:
        skills: Directories of skills or runs, or names of shipped skills: those that are to be composed afterwards.
        updates: Updates of critic and policy of each skill.
        seed: Seed of everything random.
        output_dir: The folder in which the skills go, each under its own name followed by -refit.
        overwrite: Replace skills that are there.
        json: Print the answer as JSON.
    """
    from qompose.training import refit as refitting

    loaded = [load(path) for path in skills]
    places = [output_dir / name for name in refitting.name_refitted(loaded)]
    for place in places:
        check_place(place, overwrite=overwrite)  # before the work
    begin = time.perf_counter()
    with bars() as shown:
        refitted = refitting.refit(*loaded, updates=updates, seed=seed, on_progress=shown.update)
    for skill, place in zip(refitted, places, strict=True):
        skill.save(place, overwrite=overwrite)
    answer = {
        "skills": [str(place) for place in places], "updates": updates,
        "seconds": round(time.perf_counter() - begin, 2),
    }  # fmt: skip
    if json:
        return answer
    print(f"{updates} updates of each skill, {answer['seconds']:.0f} s; saved in {' and '.join(answer['skills'])}")
    return None


def compose(
    skills: Paths,
    extraction: Extraction,
    weights: tuple[float, ...] = (),
    operator: Literal["and", "or", "gpi"] = "and",
    temperature: float | None = None,
    output_dir: Path | None = None,
    name: str | None = None,
    extract: bool = True,
    correct: Switch = False,
    correct_steps: int | None = None,
    correct_residuals: Switch = False,
    replay: bool = True,
    overwrite: Switch = False,
    json: Switch = False,
) -> dict[str, Any] | None:
    """Combine skills into one that does all at once, or any of them, without an environment.

    Args:
        skills: Directories of skills or runs, or names of shipped skills; or one expression of them in quotes, such as
            "stack & ~(0.5 * obstacle)", "gpi(a & b)" or "{a: 0.7, b: 0.3}".
        extraction: How the policy is extracted.
        weights: One weight for each skill, equal unless given. With "and" used as given, and a negative one avoids;
            with "or" relative.
        operator: Do all at once, or any, or all at once by the best of what following each skill is worth.
        temperature: Temperature of the composed policy, in reward units; the one that follows from the skills unless
            given.
        output_dir: Where the composed skill goes; skills/NAME unless given.
        name: Name of the composed skill.
        extract: Train a policy on the union of the replays; otherwise act on the sum directly. NAF needs none.
        correct: Learn from the replays what the sum overestimates where the skills will disagree, and take it off.
        correct_steps: Gradient steps of the correction, 4000 unless given; gpi takes four times as many.
        correct_residuals: Correct the critics' own errors, too, by the rewards of every skill's task.
        replay: Save the union of the replays with the skill.
        overwrite: Replace what is in output_dir.
        json: Print the answer as JSON.
    """
    from qompose.skill.algebra import gpis_of
    from qompose.training import offline

    expression = _express(skills, weights, operator, temperature)
    name = name or title_of(expression)[:64].rstrip("-._")
    directory = output_dir or Path("skills") / name
    check_place(directory, overwrite=overwrite)
    if correct_residuals and not correct:
        raise QomposeError("--correct-residuals says how to correct; give --correct, too")
    if correct_steps is not None and not correct and not gpis_of(expression):
        raise QomposeError("--correct-steps is of a correction or of gpi; give --correct, too")
    with bars() as shown:
        skill = offline.compose(
            expression, name=name, extract=extract, correct=correct, temperature=temperature, extraction=extraction,
            correction=Correction(steps=correct_steps, residuals=correct_residuals, seed=extraction.seed),
            on_progress=shown.update,
        )  # fmt: skip
    skill.save(directory, replay=replay, overwrite=overwrite)
    answer = {
        "skill": str(directory), "name": skill.name, "temperature": skill.temperature,
        "composition": skill.composition, "extraction": skill.provenance["extraction"],
        "correction": skill.provenance.get("correction"),
    }  # fmt: skip
    if json:
        return answer
    composition = skill.composition or {}
    parts = spell_sum(composition["weights"], composition["names"]) if composition["weights"] else repr(expression)
    heat = "" if skill.temperature is None else f", temperature {skill.temperature:.3g}"
    taken = " - C" if correct else ""
    print(f"{skill.name}: {parts}{taken}{heat}, saved in {directory}")
    return None


def explain(
    skills: Paths,
    weights: tuple[float, ...] = (),
    temperature: float | None = None,
    steps: int = 8_000,
    members: int = 3,
    candidates: int = 128,
    residuals: Switch = False,
    seed: int = 0,
    output: Path | None = Path("divergence.png"),
    json: Switch = False,
) -> dict[str, Any] | None:
    """Say how much skills disagree and what their sum would lose, without an environment.

    Args:
        skills: Directories of skills or runs, or names of shipped skills; or one weighted sum of them in quotes, as
            "stack & ~(0.5 * obstacle)".
        weights: One weight for each skill, used as given; equal shares unless given.
        temperature: Temperature of the composed policy, in reward units; the one that follows from the skills unless
            given.
        steps: Gradient steps of the bounds and the certificate.
        members: Networks that learn them from different parts of the replays.
        candidates: Draws of actions per state from which the divergence is estimated: more have less bias.
        residuals: Take off the critics' own errors, too, by the rewards of every skill's task.
        seed: Seed of everything random.
        output: Picture of the divergence to write, None for none; all that is found goes into a .json beside it.
        json: Print the answer as JSON.
    """
    from qompose import explanation
    from qompose.view.pictures import check_target, draw_divergence

    expression = _express(skills, weights, "and", temperature)
    if output is not None:
        check_target(output)  # before the work
    with bars() as shown:
        report = explanation.explain(
            expression, temperature=temperature, members=members,
            correction=Correction(steps=steps, residuals=residuals, seed=seed, candidates=candidates),
            on_progress=lambda done, total: shown.update("explaining", done, total),
        )  # fmt: skip
    if not json:
        print(report)
    if output is not None:
        draw_divergence(output, report)
    if json:
        return report.summary() | {"picture": None if output is None else str(output)}
    if output is not None:
        print(f"{output} and {output.with_suffix('.json')}")
    return None


def eval(
    skill: tyro.conf.Positional[str],
    env: str | None = None,
    episodes: int = 100,
    episode_steps: int | None = None,
    mode: Mode = "sample",
    seed: int = 0,
    goal_x: float | None = None,
    goal_y: float | None = None,
    env_option: tuple[str, ...] = (),
    env_timeout: float = PATIENCE,
    json: Switch = False,
) -> dict[str, Any] | None:
    """Run a skill for a number of episodes.

    Args:
        skill: Directory of a skill or run, or the name of a shipped skill.
        env: The task to run it on; the one it was trained for unless given.
        episodes: How many.
        episode_steps: Steps of an episode; those of the task unless given. Somebody else's is only cut.
        mode: How it acts: a sample of its policy, importance resampling, or the best of several candidates.
        seed: Seed of resets and actions.
        goal_x: For PushTo: x of the goal, in metres.
        goal_y: For PushTo: y of the goal, in metres.
        env_option: Further options of the environment, as key=value.
        env_timeout: Seconds that somebody else's environment may take to be made, or for one step of all lanes.
        json: Print the answer as JSON.
    """
    loaded = load(skill, replay=False)
    env, options = choose_task(loaded, env, _env_options(env_option, goal_x=goal_x, goal_y=goal_y))
    with bars() as shown:
        result = evaluate(
            loaded, env, episodes, mode=mode, seed=seed, options=options, episode_steps=episode_steps,
            env_timeout=env_timeout,
            on_step=lambda done: shown.update(loaded.name, done, episodes),
        )  # fmt: skip
    summary = result.summary()
    if json:
        return {"skill": loaded.name, "options": options, **summary}
    rows = [
        (name, f"{value['mean']:.3f}", f"{value['std']:.3f}", f"{value['median']:.3f}")
        for name, value in summary.items()
        if isinstance(value, dict)
    ]
    chosen = "".join(f", {name}={value}" for name, value in options.items())
    title = f"{loaded.name} on {env}{chosen}: {episodes} episodes, mode {mode}, seed {seed}"
    print_table(title, ("figure", "mean", "std", "median"), rows)
    return None


def record(
    skill: tyro.conf.Positional[str],
    output: Path = Path("skill.mp4"),
    env: str | None = None,
    episodes: int = 2,
    episode_steps: int | None = None,
    mode: Mode = "sample",
    seed: int = 0,
    goal_x: float | None = None,
    goal_y: float | None = None,
    env_option: tuple[str, ...] = (),
    meshes: Path | None = None,
    env_timeout: float = PATIENCE,
    overwrite: Switch = False,
    json: Switch = False,
) -> dict[str, Any] | None:
    """Write a video of a skill; needs no display.

    Args:
        skill: Directory of a skill or run, or the name of a shipped skill.
        output: File to write, .mp4 or .gif.
        env: The task to run it on; the one it was trained for unless given.
        episodes: How many.
        episode_steps: Steps of an episode; those of the task unless given. Somebody else's is only cut.
        mode: How it acts: a sample of its policy, importance resampling, or the best of several candidates.
        seed: Seed of resets and actions.
        goal_x: For PushTo: x of the goal, in metres.
        goal_y: For PushTo: y of the goal, in metres.
        env_option: Further options of the environment, as key=value.
        meshes: Directory of meshes to draw Sawyer with: base, l0 to l6 and head, .stl or .obj, each in the frame of its
            link. Nothing else changes.
        env_timeout: Seconds that somebody else's environment may take to be made, or for one step.
        overwrite: Replace the file if it exists.
        json: Print the answer as JSON.
    """
    from qompose.view import video

    loaded = load(skill, replay=False)
    options = _env_options(env_option, goal_x=goal_x, goal_y=goal_y)
    with bars() as shown:
        facts = video.record(
            loaded, output, env=env, options=options, episodes=episodes, mode=mode, seed=seed, meshes=meshes,
            episode_steps=episode_steps, env_timeout=env_timeout, overwrite=overwrite,
            on_step=lambda done, total: shown.update("recording", done, total),
        )  # fmt: skip
    if json:
        return facts
    print(f"{output}: {episodes} episodes, drawn with {facts['renderer']}")
    return None


def plot(runs: Paths, output: Path = Path("curves.png"), json: Switch = False) -> dict[str, Any] | None:
    """Draw the learning curves of one or several runs.

    Args:
        runs: Directories of runs.
        output: Picture to write; the numbers go into a .json beside it.
        json: Print the answer as JSON.
    """
    from qompose.view.pictures import draw_learning_curves

    draw_learning_curves(output, [Path(run) for run in runs])
    if json:
        return {"picture": str(output), "numbers": str(output.with_suffix(".json"))}
    print(f"{output} and {output.with_suffix('.json')}")
    return None


def log(
    action: tyro.conf.Positional[Literal["verify", "replay"]], run: tyro.conf.Positional[Path], json: Switch = False
) -> dict[str, Any] | None:
    """Check the log of a run, or rebuild its networks from it, without an environment, and compare every bit.

    Args:
        action: Check the log's records and its schedule of updates, or train on it once more.
        run: Directory of a run.
        json: Print the answer as JSON.
    """
    from qompose.training.rebuild import replay_log, verify_log

    if action == "verify":
        answer = verify_log(run)
    else:
        with bars() as shown:
            answer = replay_log(run, on_progress=lambda done, total: shown.update("replaying", done, total))
    if json:
        return answer
    torn = f"; {answer['torn_bytes']} bytes behind them are torn" if answer["torn_bytes"] else ""
    print(f"{answer['transitions']} transitions of {answer['steps']} steps, {answer['updates']} updates{torn}")
    if answer.get("checkpoint") is not None:
        skill = " and of the skill" if answer["skill"] else ""
        print(f"the networks are those of checkpoint {answer['checkpoint']}{skill}, bit for bit")
    return None


def list_(folder: tuple[Path, ...] = (Path("runs"), Path("skills")), json: Switch = False) -> dict[str, Any] | None:
    """List the tasks, the shipped skills and the skills in some folders.

    Args:
        folder: Folders to look for skills in.
        json: Print the answer as JSON.
    """
    from qompose.tasks import TASKS

    found = {name: str(path) for name, path in shipped_skills().items()}
    for place in folder:
        for entry in sorted(place.iterdir()) if place.is_dir() else []:
            with contextlib.suppress(QomposeError, OSError):
                if (path := find_skill(entry)) and (path / "manifest.json").exists():
                    found[str(entry)] = str(path)
    answer: dict[str, Any] = {"tasks": sorted(TASKS), "skills": [_summary(name, path) for name, path in found.items()]}
    if json:
        return answer
    print("tasks: " + ", ".join(answer["tasks"]))
    rows = [(s["path"], s["task"], *map(_cell, (s["steps"], s["temperature"], s["error"]))) for s in answer["skills"]]
    print_table("skills", ("name or directory", "task", "steps", "temperature", ""), rows)
    return None


def demo(
    pretrained: Switch = False,
    refit: bool = True,
    output_dir: Path = Path("demo"),
    total_steps: int = 60_000,
    episodes: int = 100,
    seed: int = 0,
    video: bool = True,
    json: Switch = False,
) -> dict[str, Any] | None:
    """Train two skills from scratch, compose them, evaluate all three, draw and film them.

    Args:
        pretrained: Use the shipped skills instead of training.
        refit: Let the two trained skills learn on, offline, from each other's experience before they are composed.
        output_dir: Where everything goes; what an earlier demo left there is replaced.
        total_steps: Environment steps for each skill.
        episodes: Episodes of each evaluation.
        seed: Seed of everything random.
        video: Write a short video.
        json: Print the report as JSON.
    """
    from qompose import demo as demonstration

    report = demonstration.run_demo(
        output_dir, pretrained=pretrained, refit=refit, total_steps=total_steps, episodes=episodes, seed=seed,
        video=video,
    )  # fmt: skip
    if json:
        return report
    demonstration.print_report(report)
    return None


def reproduce(
    what: tyro.conf.Positional[Literal["table1", "fig2", "fig3", "fig4", "fig5", "fig6", "composition", "corners"]],
    seeds: int = 3,
    total_steps: int | None = None,
    workers: int | None = None,
    output_dir: Path | None = None,
    json: Switch = False,
) -> dict[str, Any] | None:
    """Make a table or figure of the paper again. The same command goes on after an interruption.

    Args:
        what: Table I or a figure of the paper; or composition, what each operator loses on finite problems and for a
            point, and corners, the same for the pusher.
        seeds: How many seeds: 0, 1, 2, ...
        total_steps: Environment steps of each training: 60 000 unless given; of fig4 12 000, and half as many more
            for random targets.
        workers: Trainings side by side, one core each; as many as there are cores unless given.
        output_dir: Where everything goes: reproduce, reproduce-reach or reproduce-stack unless given. What is finished
            there is kept, also what another table or figure made.
        json: Print the answer as JSON.
    """
    from qompose.paper import composition, corners, fig2, fig3, fig4, fig5, fig6, table1
    from qompose.paper.study import Study

    made = {
        "table1": table1, "fig2": fig2, "fig3": fig3, "fig4": fig4, "fig5": fig5, "fig6": fig6,
        "composition": composition, "corners": corners,
    }  # fmt: skip
    chosen = made[what]
    others = {"fig4": ("reproduce-reach", 12_000), "fig5": ("reproduce-stack", 60_000)}
    folder, steps = others.get("fig5" if what == "fig6" else what, ("reproduce", 60_000))
    study = Study(output_dir or Path(folder), seeds, steps if total_steps is None else total_steps, workers)
    result = chosen.reproduce(study)
    if json:
        return result
    chosen.print_report(result)
    films = [result[name] for name in ("film", "film_note") if name in result]
    for line in (*result.get("pictures", [result.get("picture")]), *films, result["file"]):
        print(line)
    return None


def doctor(json: Switch = False) -> dict[str, Any] | None:
    """Check what this machine has and whether it all works.

    Args:
        json: Print the answer as JSON.
    """
    from qompose.doctor import examine

    checks = examine()
    ok = all(check.ok is not False for check in checks)
    if json:
        return {
            "ok": ok,
            "checks": [dataclasses.asdict(check) for check in checks],
        }
    words = {True: "ok", False: "FAILED", None: "-"}
    print_table(
        "qompose doctor", ("check", "", "found", "advice"),
        [(check.name, words[check.ok], check.detail, check.advice or "") for check in checks],
    )  # fmt: skip
    if not ok:
        raise QomposeError("something does not work; see FAILED above")
    return None


def _express(
    skills: tuple[str, ...], weights: tuple[float, ...], operator: str, temperature: float | None
) -> Expression:
    """What the positional arguments mean: one expression, skills under one operator, or one skill and a temperature."""
    if len(skills) == 1 and set(skills[0]) & set("&|~*({"):
        if weights or operator != "and":
            raise QomposeError("weights and operators stand in the expression itself; leave the flags out")
        return read_expression(skills[0], load)
    weighted = _weigh(skills, weights, least=2 if temperature is None else 1)
    if operator == "or":
        terms = [weight * skill for skill, weight in weighted.items()] if weights else list(weighted)
        return functools.reduce(lambda one, other: one | other, terms)
    return gpi(weighted) if operator == "gpi" else from_weights(weighted)


def _weigh(skills: tuple[str, ...], weights: tuple[float, ...], least: int) -> dict[Skill, float]:
    """The skills at those paths with the weights of the flags, or equal shares."""
    if len(skills) < least:
        raise QomposeError(
            'give at least two skills, or an expression of them such as "a & b"; one alone needs --temperature'
        )
    if weights and len(weights) != len(skills):
        raise QomposeError(f"{len(weights)} weights for {len(skills)} skills; give one for each, or none")
    loaded = [load(path) for path in skills]
    return dict(zip(loaded, weights or [1.0 / len(loaded)] * len(loaded), strict=True))


def _env_options(pairs: tuple[str, ...], **given: Any) -> dict[str, Any]:
    options = {name: value for name, value in given.items() if value is not None}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise QomposeError(f"--env-option {pair!r} is not of the form key=value")
        options[key] = _scalar(text)
    return options


def _scalar(text: str) -> Any:
    """JSON where it is JSON: 3, true, [0, 1]; True and False as Python spells them; else a word."""
    if text in ("True", "False"):
        return text == "True"
    for parse in (parse_json, float):
        with contextlib.suppress(ValueError):
            return parse(text.encode())
    return text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _summary(name: str, path: str) -> dict[str, Any]:
    try:
        skill = load(path, replay=False)
    except QomposeError as error:
        return {"path": name, "task": "", "steps": None, "temperature": None, "error": str(error)}
    return {
        "path": name, "task": skill.task["id"], "steps": skill.provenance.get("steps"),
        "temperature": skill.temperature, "error": None,
    }  # fmt: skip
