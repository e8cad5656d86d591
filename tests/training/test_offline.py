import functools
import inspect
from dataclasses import replace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qompose.agents.ddpg import DDPG
from qompose.agents.naf import NAF
from qompose.agents.sql import SQL
from qompose.envs.lockstep import Lockstep
from qompose.nets import Sampler, init_perceptron
from qompose.skill.algebra import critic_of, samplers_of
from qompose.skill.artifact import Skill
from qompose.skill.expression import gpi, prefer
from qompose.skill.network import Network
from qompose.training import offline
from qompose.training.correct import Correction
from qompose.training.export import describe_skill, export_skill
from qompose.training.learner import init
from qompose.training.offline import Extraction, compose, extract_policy
from qompose.training.online import Trained, Training
from qompose.types import QomposeError, Transition

QUICK = Extraction(steps=250, batch_size=32, hidden=(16,), learning_rate=3e-3)


def sharpen(skill):
    """The same skill with values that differ by many temperatures between actions, as after a long training."""
    arrays = dict(skill.critic.arrays)
    arrays |= {"weight_input": 5.0 * arrays["weight_input"], "scale": 20.0 * arrays["scale"]}
    return replace(skill, critic=Network(skill.critic.spec, {k: np.float32(v) for k, v in arrays.items()}))


@pytest.fixture(scope="module")
def right(tiny_skills):
    return sharpen(tiny_skills["right"])


@pytest.fixture(scope="module")
def top(tiny_skills):
    return sharpen(tiny_skills["top"])


@pytest.fixture(scope="module")
def corner(right, top):
    """Two skills and their composition, with what it said on the way."""
    progress = []
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((Lockstep, "make"), (gymnasium, "make"), (gymnasium, "make_vec")):
            patch.setattr(owner, name, lambda *args, **kwargs: pytest.fail("composing touched an environment"))
        skill = compose(
            right & top,
            extraction=QUICK,
            on_progress=lambda *done: progress.append(done),
        )
    return skill, progress


def some_inputs(skill, count=50):
    rng = np.random.default_rng(1)
    observations = skill.replay.observation[rng.integers(len(skill.replay.reward), size=count)]
    return observations, rng.uniform(-1, 1, (count, 2)).astype(np.float32)


def close(first, second):
    return np.allclose(first, second, rtol=0, atol=1e-4 * (np.ptp(second) + np.abs(second).max() * 1e-2))


def test_composing_touches_no_environment_and_tells_its_progress(corner):
    _, progress = corner
    assert progress == [("extracting", 100, 250), ("extracting", 200, 250), ("extracting", 250, 250)]


def test_a_conjunction_has_the_mean_of_the_values_and_the_union_of_the_experience(corner, right, top):
    skill, _ = corner
    observations, actions = some_inputs(skill)
    expected = 0.5 * right.q(observations, actions) + 0.5 * top.q(observations, actions)
    assert close(skill.q(observations, actions), expected)
    assert skill.temperature == pytest.approx(0.5 * right.temperature + 0.5 * top.temperature)
    assert len(skill.replay.reward) == len(right.replay.reward) + len(top.replay.reward)
    assert skill.composition == {"expression": "right & top", "weights": [0.5, 0.5], "names": ["right", "top"]}
    assert skill.name == "right-and-top" and skill.provenance["extraction"]["steps"] == 250
    assert skill.task == {"id": "MultiGoal", "options": {}}


def test_halves_by_expression_and_by_mapping_are_the_same(corner, right, top):
    by_name = compose({right: 0.5, top: 0.5}, extraction=QUICK)
    for role in ("critic", "sampler"):
        first, second = getattr(corner[0], role), getattr(by_name, role)
        assert first.spec == second.spec
        assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)
    assert by_name.temperature == corner[0].temperature


def test_extraction_raises_the_composed_value_of_fresh_samplers_actions(corner):
    skill, _ = corner
    states = jnp.asarray(skill.replay.observation[::10])
    noise = jax.random.normal(jax.random.key(3), (len(states), 16, 2))
    fresh = Sampler(init_perceptron(2, 2, 2, QUICK.hidden, key=jax.random.fold_in(jax.random.key(QUICK.seed), 0)))

    critic = critic_of(skill)

    @jax.jit
    def mean_value(sampler):
        actions = jnp.tanh(jax.vmap(sampler)(states, noise))
        return jnp.mean(jax.vmap(critic)(states, actions))

    anywhere = jax.random.uniform(jax.random.key(4), (len(states), 256, 2), minval=-1.0)
    q = jax.vmap(critic)(states, anywhere)
    exact = jnp.mean(jnp.sum(jax.nn.softmax(q / skill.temperature, axis=-1) * q, axis=-1))  # of the policy exp(Q/α)
    begun, extracted = mean_value(fresh), mean_value(samplers_of(skill)[0])
    assert exact - begun > 4.0 * skill.temperature
    assert extracted - begun > 0.95 * (exact - begun)


def test_weights_are_used_as_given(right, top):
    skill = compose({right: 0.7, top: 0.5}, extract=False)
    observations, actions = some_inputs(skill)
    expected = 0.7 * right.q(observations, actions) + 0.5 * top.q(observations, actions)
    assert close(skill.q(observations, actions), expected)
    assert skill.temperature == pytest.approx(0.7 * right.temperature + 0.5 * top.temperature)
    assert skill.composition["weights"] == [0.7, 0.5]


def test_temperatures_are_weighted_too(right, top):
    hot = replace(top, temperature=0.9)
    assert compose(3 * right & hot, extract=False).temperature == pytest.approx(0.75 * 0.1 + 0.25 * 0.9)


def test_without_extraction_it_acts_on_the_sum_by_resampling(right, top):
    skill = compose(right & top, extract=False)
    assert skill.sampler.spec["kind"] == "candidates" and skill.provenance["extraction"]["steps"] == 0
    observations, _ = some_inputs(skill, 40)
    rng = np.random.default_rng(0)
    tiled = np.repeat(observations, 25, axis=0)
    chosen = skill.q(tiled, skill.act(tiled, mode="resample", rng=rng)).mean()
    random = skill.q(tiled, rng.uniform(-1, 1, (1000, 2)).astype(np.float32)).mean()
    best = skill.q(tiled, skill.act(tiled, mode="best", rng=rng)).mean()
    assert random + skill.temperature < chosen < best
    # The samplers of its parts know nothing of the sum: a sample of its policy is one of these, too.
    sampled, resampled = (skill.act(tiled, mode, np.random.default_rng(1)) for mode in ("sample", "resample"))
    np.testing.assert_array_equal(sampled, resampled)
    trained = right.act(tiled, "sample", np.random.default_rng(1))
    assert not np.array_equal(trained, right.act(tiled, "resample", np.random.default_rng(1)))


def test_a_skill_without_replay_is_refused_with_advice_unless_nothing_is_extracted(right, top):
    with pytest.raises(QomposeError, match=r"skill 'top' carries no replay.*or compose without extraction"):
        compose(right & top.strip(), extraction=QUICK)
    skill = compose(right & top.strip(), extract=False)
    assert skill.replay is None and skill.act(np.zeros(2)).shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"discount": 0.9}, "discount: 0.99 and 0.9 differ"), ({"terminates": False, "replay": None}, "terminates")],
)
def test_incompatible_skills_are_refused(right, top, change, message):
    with pytest.raises(QomposeError, match=f"skills 'right' and 'top': {message}"):
        compose(right & replace(top, **change), extract=False)


def test_a_name_that_no_skill_may_carry_is_refused_before_the_work(right, top, monkeypatch):
    monkeypatch.setattr(offline, "extract_policy", lambda *args, **kwargs: pytest.fail("too late"))
    with pytest.raises(QomposeError, match="name: must be of the form"):
        compose(right & top, name="The Corner")


def test_many_skills_fit_into_the_fields(right):
    many = [replace(right, name=f"{'x' * 60}{i}", task={"id": "T" * 100 + str(i), "options": {}}) for i in range(12)]
    skill = compose(functools.reduce(lambda a, b: a & b, many), extract=False)
    assert len(skill.task["id"]) == 256 and skill.task["id"].endswith("…") and len(skill.name) <= 64


def test_a_composed_skill_is_composed_again(corner, right, tmp_path):
    skill, third = corner[0], replace(right, name="third")
    whole = compose(skill & third, extract=False)
    observations, actions = some_inputs(whole)
    expected = 0.5 * skill.q(observations, actions) + 0.5 * third.q(observations, actions)
    assert close(whole.q(observations, actions), expected)
    assert whole.composition["names"] == ["right-and-top", "third"]
    assert whole.critic.spec["of"][0]["kind"] == "sum"
    assert len(whole.replay.reward) == 1800
    again = Skill.load(whole.save(tmp_path / "whole"))
    assert np.array_equal(again.q(observations, actions), whole.q(observations, actions))


def test_skills_of_several_samplers_are_composed_again(right, top):
    flat = compose(compose(right & top, extract=False) & replace(right, name="third"), extract=False)
    assert len(flat.sampler.spec["of"]) == 3 and flat.act(np.zeros(2)).shape == (2,)


def test_a_composed_skill_is_saved_and_its_two_critics_agree(corner, tmp_path):
    skill = corner[0]
    again = Skill.load(skill.save(tmp_path / "corner"))
    observations, actions = some_inputs(skill)
    in_jax = jax.jit(jax.vmap(critic_of(again)))(observations, actions)
    assert close(np.asarray(in_jax), skill.q(observations, actions))
    assert np.array_equal(again.q(observations, actions), skill.q(observations, actions))
    rngs = [np.random.default_rng(0) for _ in range(2)]
    assert np.array_equal(again.act(observations, rng=rngs[0]), skill.act(observations, rng=rngs[1]))
    assert again.composition == skill.composition and again.provenance == skill.provenance


def test_the_seed_decides_the_extraction(corner, tiny_agent):
    skill = corner[0]
    agent = replace(tiny_agent, batch_size=8)
    options = Extraction(steps=3, batch_size=8, hidden=(16,))
    states = skill.replay.observation

    def weights(seed):
        sampler = extract_policy(agent, critic_of(skill), states, 2, replace(options, seed=seed))
        return np.asarray(sampler.network.weight_out)

    assert np.array_equal(weights(0), weights(0)) and not np.array_equal(weights(0), weights(1))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"batch_size": 2_000_000},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"seed": -1},
        {"seed": 2**32},
        {"hidden": ()},
        {"hidden": (0,)},
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(change):
    with pytest.raises(QomposeError, match=f"^{next(iter(change))} is ") as caught:
        replace(QUICK, **change)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- AVOID, OR, PREFER


def test_what_is_avoided_is_subtracted_cools_and_proposes_no_actions(right, top):
    skill = compose(right & ~(0.4 * top), extract=False)
    observations, actions = some_inputs(skill)
    assert close(skill.q(observations, actions), right.q(observations, actions) - 0.4 * top.q(observations, actions))
    assert skill.temperature == pytest.approx(right.temperature - 0.4 * top.temperature)
    assert skill.name == "right-and-not-top"
    assert skill.composition == {
        "expression": "right & ~(0.4*top)", "weights": [1.0, -0.4], "names": ["right", "top"],
    }  # fmt: skip
    assert skill.sampler.spec["of"] == [right.sampler.spec]
    assert len(skill.replay.reward) == len(right.replay.reward) + len(top.replay.reward)
    by_name = compose({right: 1.0, top: -0.4}, extract=False)
    assert by_name.critic.spec == skill.critic.spec and by_name.temperature == skill.temperature


@pytest.mark.parametrize("number", [1.0, 1.5])
def test_avoiding_too_much_leaves_no_temperature_and_one_may_be_given(right, top, number):
    with pytest.raises(QomposeError, match=r"sum to -?0(\.05)?, .*temperature \(temperature=") as caught:
        compose(right & ~(number * top), extract=False)
    assert "\n" not in str(caught.value)
    assert compose(right & ~(number * top), extract=False, temperature=0.3).temperature == 0.3


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf"), 1e-12])
def test_a_temperature_that_is_not_positive_is_refused(right, top, temperature):
    with pytest.raises(QomposeError, match=r"temperature is .* it must be"):
        compose(right & top, extract=False, temperature=temperature)


def test_what_no_manifest_may_hold_is_refused_before_anything_is_learned(endless_skills, monkeypatch):
    right, top = endless_skills.values()
    for name in ("learn_correction", "learn_gpi", "extract_policy"):
        monkeypatch.setattr(offline, name, lambda *_, **__: pytest.fail("too late"))
    deep = right
    for _ in range(7):
        deep = prefer(deep, top, slack=0.5)
    for expression, correct, message in (
        ({right: 1e-10, top: 1.0}, True, "a weight must be a number from 1e-9"),
        (prefer(right, top, slack=1e-10), False, "slack: must be a number from 1e-09"),
        (gpi(right & top) & ~(1e-10 * top), False, "a weight must be a number from 1e-9"),
        (deep, False, "is nested deeper than 7"),
    ):
        with pytest.raises(QomposeError, match=message) as caught:
            compose(expression, correct=correct)
        assert "\n" not in str(caught.value)


def test_one_skill_is_corrected_for_another_temperature(endless_skills):
    right, quick = endless_skills["right"], Correction(steps=3, batch_size=16, hidden=(8,), candidates=16, kept=2)
    cool = compose(right, temperature=0.05, correct=True, correction=quick, extract=False)
    assert cool.critic.spec["of"][0]["kind"] == "sum" and cool.temperature == 0.05
    assert cool.act(np.zeros(2), "resample").shape == (2,)


def test_one_skill_may_be_given_another_temperature_and_so_fit_into_an_or(right, top):
    cool = compose(right, extract=False, temperature=0.05)
    observations, actions = some_inputs(right)
    assert np.array_equal(cool.q(observations, actions), right.q(observations, actions))
    with pytest.raises(QomposeError, match=r"temperatures from 0\.05 to 0\.1, and \| needs one"):
        compose(cool | top, extract=False)
    assert compose(cool | replace(top, temperature=0.05), extract=False).temperature == 0.05


def test_an_or_is_the_mixture_is_saved_and_has_no_linear_weights(right, top, tmp_path):
    skill = compose(right | 3 * top, extract=False)
    observations, actions = some_inputs(skill)
    first, second = (part.q(observations, actions).astype(np.float64) for part in (right, top))
    highest = np.maximum(first, second)
    mixture = 0.25 * np.exp((first - highest) / 0.1) + 0.75 * np.exp((second - highest) / 0.1)
    assert close(skill.q(observations, actions), highest + 0.1 * np.log(mixture))
    assert (skill.temperature, skill.name) == (0.1, "right-or-top")
    assert skill.composition == {"expression": "right | 3*top", "weights": None, "names": ["right", "top"]}
    again = Skill.load(skill.save(tmp_path / "s"))
    assert again.critic.spec == skill.critic.spec and again.composition == skill.composition
    assert np.array_equal(again.q(observations, actions), skill.q(observations, actions))


def test_a_preference_puts_high_first_and_keeps_what_low_wants_within_the_slack(right, top):
    observations, _ = some_inputs(right)
    given_up, kept = [], []
    for slack in (0.05, 1e6):
        skill = compose(prefer(right, top, slack=slack), extract=False)
        actions = skill.act(observations, "best", np.random.default_rng(0))
        best = right.q(observations, right.act(observations, "best", np.random.default_rng(0)))
        given_up.append(np.mean(best - right.q(observations, actions)))
        kept.append(np.mean(top.q(observations, actions)))
    assert skill.name == "right-over-top" and skill.temperature == top.temperature
    # With hardly any slack high decides, with endless slack low does.
    assert given_up[0] < 0.3 * given_up[1] and kept[1] > kept[0] + top.temperature


def test_a_nested_expression_is_extracted_saved_and_composed_again(right, top, tmp_path):
    third = replace(right, name="third")
    expression = (right | top) & prefer(top, right & ~(0.5 * third), slack=0.5)
    skill = compose(expression, extraction=replace(QUICK, steps=100))
    assert skill.sampler.spec["kind"] == "sampler" and skill.composition["names"] == ["right", "top", "third"]
    assert skill.temperature == pytest.approx(0.5 * 0.1 + 0.5 * 0.05) and len(skill.replay.reward) == 1800
    again = Skill.load(skill.save(tmp_path / "s"))
    observations, actions = some_inputs(skill)
    in_jax = jax.jit(lambda *both: critic_of(again)(*both))(observations, actions[:, None, :])[:, 0]
    assert close(np.asarray(in_jax), skill.q(observations, actions))
    uniform = np.random.default_rng(0).uniform(-1, 1, (len(skill.replay.reward), 2)).astype(np.float32)
    states = skill.replay.observation
    drawn = skill.q(states, skill.act(states, rng=np.random.default_rng(1)))
    assert drawn.mean() > skill.q(states, uniform).mean() + skill.temperature
    whole = compose(again & top, extract=False)
    assert whole.critic.spec["of"][0] == skill.critic.spec and whole.composition["weights"] == [0.5, 0.5]


# ------------------------------------------------------------------------------------------------------- DDPG and NAF


def untrained(agent, name, seed):
    """A skill of fresh networks that has seen random transitions."""
    rng = np.random.default_rng(seed)
    fields = describe_skill(name, Lockstep.make("MultiGoal", 1, {}), agent, Training(), {})
    observation, action = rng.uniform(-4, 4, (500, 2)).astype(np.float32), rng.uniform(-1, 1, (500, 2))
    reward = rng.normal(-1.0, 1.0, 500).astype(np.float32)
    data = Transition(observation, action.astype(np.float32), reward, observation, np.zeros(500, np.float32))
    state = agent.calibrate(init(agent, 2, 2, jax.random.key(seed)), jax.tree.map(jnp.asarray, data))
    return export_skill(fields, Trained(state, data, 1, 500, 0, 1.0, []))


@pytest.fixture(scope="module")
def ddpg_pair():
    agent = DDPG(hidden=(16,))
    return sharpen(untrained(agent, "a", 0)), sharpen(untrained(agent, "b", 1))


@pytest.fixture(scope="module")
def naf_pair():
    agent = NAF(hidden=(16,))
    return untrained(agent, "a", 0), untrained(agent, "b", 1)


def test_ddpg_extracts_an_actor_that_climbs_the_sum(ddpg_pair, tmp_path):
    first, second = ddpg_pair
    skill = compose({first: 0.7, second: 0.5}, extraction=QUICK)
    assert (skill.algorithm, skill.temperature, skill.estimator) == ("ddpg", None, None)
    assert skill.sampler.spec["kind"] == "actor" and skill.provenance["extraction"]["steps"] == 250
    observations, actions = some_inputs(skill, 200)
    total = 0.7 * first.q(observations, actions) + 0.5 * second.q(observations, actions)
    assert close(skill.q(observations, actions), total)
    assert len(skill.replay.reward) == 1000

    states = skill.replay.observation
    reached = skill.q(states, skill.act(states)).mean()
    assert all(reached > skill.q(states, part.act(states)).mean() for part in ddpg_pair)
    highest = skill.q(states, skill.act(states, "best", np.random.default_rng(0))).mean()
    uniform = skill.q(states, np.random.default_rng(1).uniform(-1, 1, (1000, 2))).mean()
    assert (reached - uniform) > 0.8 * (highest - uniform) > 0.0
    again = Skill.load(skill.save(tmp_path / "s"))
    assert np.array_equal(again.act(observations), skill.act(observations))


@pytest.mark.parametrize(("kind", "rate"), [(SQL, "sampler_learning_rate"), (DDPG, "actor_learning_rate")])
def test_extraction_is_the_policy_step_of_online_training(right, top, ddpg_pair, monkeypatch, compiled, kind, rate):
    calls = []
    improve = kind.improve_policy

    def watch(self, *args, **kwargs):
        calls.append(self)
        return improve(self, *args, **kwargs)

    monkeypatch.setattr(kind, "improve_policy", watch)
    first, second = (right, top) if kind is SQL else ddpg_pair
    options = Extraction(steps=offline.CHUNK + 50, batch_size=4, hidden=(8,), learning_rate=0.02)

    def extract():
        return compose(first & second, extraction=options).sampler.arrays

    whole = extract()
    assert [(getattr(agent, rate), agent.batch_size) for agent in calls] == [(0.02, 4)]  # traced once
    assert compiled[offline._improve.__name__] == 1
    compiled.clear()
    monkeypatch.setattr(offline, "CHUNK", 60)
    in_other_chunks = extract()
    assert not compiled and all(np.array_equal(whole[name], in_other_chunks[name]) for name in whole)


def test_a_policy_is_extracted_at_the_temperature_of_the_composition(right, top, monkeypatch):
    seen, improve = [], SQL.improve_policy

    def watch(self, *args, **kwargs):
        seen.append((self.temperature, self.discount, kwargs.get("temperature")))
        return improve(self, *args, **kwargs)

    monkeypatch.setattr(SQL, "improve_policy", watch)
    options = Extraction(steps=2, batch_size=4, hidden=(8,))
    compose(right & top, temperature=0.03, extraction=options)
    compose(right & replace(top, temperature=0.5), extraction=options)
    assert seen == [(pytest.approx(alpha), right.discount, None) for alpha in (0.03, 0.3)]


def test_ddpg_without_extraction_is_refused(ddpg_pair):
    with pytest.raises(QomposeError, match="skills of ddpg act by an actor only: compose them with extraction"):
        compose(ddpg_pair[0] & ddpg_pair[1], extract=False)


def test_settings_of_the_extraction_are_refused_before_anything_is_learned(right, top, monkeypatch):
    monkeypatch.setattr(offline, "learn_correction", lambda *_, **__: pytest.fail("it began to learn"))
    for wrong, message in (
        ({"temperature": 1e-9}, "temperature is 1e-09; it must be"), ({"name": "a b"}, "name: "),
    ):  # fmt: skip
        with pytest.raises(QomposeError, match=message):
            compose(right & top, **{"correct": True, **wrong})


def test_switches_are_true_or_false(right, top):
    unchecked = inspect.unwrap(compose)  # types are checked in tests, not where people work
    for wrong in ({"extract": "no"}, {"correct": "yes"}, {"correct": 0.5}):
        ((name, value),) = wrong.items()
        with pytest.raises(QomposeError, match=f"^{name} is {value!r}; give true or false"):
            unchecked(right & top, **wrong)


def test_ddpg_avoids_and_prefers(ddpg_pair):
    first, second = ddpg_pair
    skill = compose(prefer(first, first & ~second, slack=0.5), extraction=replace(QUICK, steps=100))
    assert skill.critic.spec["kind"] == "prefer" and skill.composition["names"] == ["a", "b"]
    observations, actions = some_inputs(skill, 200)
    low = first.q(observations, actions) - second.q(observations, actions)
    assert np.all(skill.q(observations, actions) <= low + 1e-3 * np.abs(low))
    uniform = skill.q(observations, actions).mean()
    assert skill.q(observations, skill.act(observations)).mean() > uniform


def test_ddpg_has_no_or_and_no_temperature(ddpg_pair):
    first, second = ddpg_pair
    with pytest.raises(QomposeError, match=r"\| needs a temperature, and these skills have none"):
        compose(first | second, extraction=QUICK)
    with pytest.raises(QomposeError, match="skills of ddpg have no temperature; leave it out"):
        compose(first & second, extraction=QUICK, temperature=0.1)


def test_naf_composes_by_positive_sums_only(naf_pair):
    first, second = naf_pair
    for form in (first & ~second, {first: 1.0, second: -0.1}, first | second, prefer(first, second, slack=0.5)):
        with pytest.raises(QomposeError, match="skills of naf compose by & with positive weights only"):
            compose(form)
    with pytest.raises(QomposeError, match="skills of naf have no temperature"):
        compose(first & second, temperature=0.1)


def test_naf_composes_in_closed_form(naf_pair, tmp_path):
    first, second = naf_pair
    skill = compose(3 * first & second)
    assert skill.sampler is None and skill.provenance["extraction"]["steps"] == 0 and skill.temperature is None
    assert skill.critic.spec["kind"] == "sum" and skill.critic.spec["of"][0]["kind"] == "quadratic"
    observations, actions = some_inputs(skill, 50)
    assert close(
        skill.q(observations, actions), 0.75 * first.q(observations, actions) + 0.25 * second.q(observations, actions)
    )
    chosen = skill.act(observations)
    rng = np.random.default_rng(0)
    for _ in range(200):
        near = np.clip(chosen + rng.normal(0, 0.3, chosen.shape), -1, 1)
        assert np.all(skill.q(observations, near) <= skill.q(observations, chosen) + 1e-5)
    assert len(skill.replay.reward) == 1000
    again = Skill.load(skill.save(tmp_path / "s"))
    assert np.array_equal(again.act(observations), chosen)
    whole = compose(again & replace(first, name="c"))
    assert whole.act(observations).shape == chosen.shape and whole.critic.spec["of"][0]["kind"] == "sum"


def test_naf_needs_no_replay(naf_pair):
    first, second = naf_pair
    skill = compose(first & second.strip())
    assert skill.replay is None and skill.act(np.zeros(2)).shape == (2,)


def test_a_naf_skill_composed_with_its_twin_is_itself(naf_pair):
    first = naf_pair[0]
    skill = compose(first & replace(first, name="twin"))
    observations, actions = some_inputs(skill, 50)
    np.testing.assert_allclose(skill.act(observations), first.act(observations), atol=1e-5)
    assert close(skill.q(observations, actions), first.q(observations, actions))


def test_skills_of_two_algorithms_are_refused(ddpg_pair, naf_pair, right):
    for first, second in ((ddpg_pair[0], naf_pair[1]), (right, ddpg_pair[1])):
        with pytest.raises(QomposeError, match="differ; only values of one algorithm can be added"):
            compose(first & second)
