"""The planted bugs of `benchmarks.planted_bugs`: mistakes that public code has made, or that are easily made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """A fault: replacements in one file of the package, the unit tests in its way, and the gates."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]
    gates: tuple[str, ...]


VALUE, STEIN, QUADRATIC = "soft/value.py", "soft/stein.py", "soft/quadratic.py"
SQL, DDPG, NAF = (f"agents/{name}.py" for name in ("sql", "ddpg", "naf"))
TEST_SQL, TEST_DDPG, TEST_NAF = (f"tests/agents/test_{name}.py" for name in ("sql", "ddpg", "naf"))
TEST_VALUE, TEST_STEIN, TEST_QUADRATIC = (f"tests/soft/test_{name}.py" for name in ("value", "stein", "quadratic"))
LOCKSTEP, REPLAY = "envs/lockstep.py", "replay.py"
CORRECT, BOUNDS = "soft/correct.py", "soft/bounds.py"
TEST_CORRECT, TEST_BOUNDS = "tests/soft/test_correct.py", "tests/soft/test_bounds.py"
ONLINE, LEARNER = "training/online.py", "training/learner.py"
TEST_LOCKSTEP, TEST_ONLINE, TEST_REPLAY = (
    "tests/envs/test_lockstep.py", "tests/training/test_online.py", "tests/test_replay.py",
)  # fmt: skip


def of(file: str, *claims: str) -> tuple[str, ...]:
    """The tests of those claims."""
    return tuple(f"{file}::test_{claim}" for claim in claims)


FLAT = of(TEST_SQL, "sampler_of_a_flat_q_is_uniform_up_to_the_edge")
SHAPE = FLAT + of(TEST_SQL, "reward_of_the_action_gives_the_soft_value_and_the_boltzmann_policy")
BELLMAN = of(TEST_DDPG, "the_loss_is_the_bellman_error_of_the_targets")
SOLVED = of("tests/training/test_solve.py", "what_is_learned_is_the_fixed_point")
FIGURES = of("tests/training/test_solve.py", "the_figures_are_those_of_the_oracle")
CALIBRATION = "calibration_starts_at_the_return_of_the_mean_reward"

BUGS: tuple[Bug, ...] = (
    # The Stein step.
    Bug(
        "particles attract instead of repelling each other", STEIN,
        (("gradient - (2.0 / bandwidth) * fixed", "gradient + (2.0 / bandwidth) * fixed"),
         ("repulsion = (2.0 / bandwidth)", "repulsion = -(2.0 / bandwidth)")),
        (TEST_STEIN,), ("sql", "goals"),
    ),
    Bug(
        "gradient of the kernel dropped", STEIN,
        (("gradient - (2.0 / bandwidth) * fixed", "gradient"), ("(attraction + repulsion)", "attraction")),
        (TEST_STEIN,), ("sql", "goals"),
    ),
    Bug(
        "particles descend instead of climbing", STEIN,
        (("gradient - (2.0 / bandwidth) * fixed", "-gradient - (2.0 / bandwidth) * fixed"),),
        (TEST_STEIN,), ("sql", "goals"),
    ),
    Bug(
        "bandwidth without the logarithm of the count", STEIN,
        (("scaled = median / math.log(max(square.shape[-2], 2))", "scaled = median"),),
        (TEST_STEIN,), ("sql", "goals"),
    ),
    # The soft value and the target.
    Bug(
        "soft value is the mean of Q", VALUE,
        (("return temperature * (logsumexp(q / temperature - log_density) - math.log(q.shape[-1]))",
          "return q.mean(axis=-1) + 0.0 * log_density.sum(axis=-1)"),),
        (TEST_VALUE,), ("sql",),
    ),
    Bug(
        "soft value is a sum over particles, not a mean", VALUE,
        ((" - math.log(q.shape[-1]))", ")"),), (TEST_VALUE,), ("sql",),
    ),
    Bug(
        "temperature missing in the target", VALUE,
        (("return temperature * (logsumexp(q / temperature - log_density) - math.log(q.shape[-1]))",
          "return logsumexp(q - log_density) - math.log(q.shape[-1])"),),
        (TEST_VALUE,), ("sql",),
    ),
    Bug(
        "density of the proposal missing", SQL,
        (("soft_value(q, log_density, temperature)", "soft_value(q, 0.0 * log_density, temperature)"),),
        of(TEST_SQL, "estimated_value_equals_quadrature"), ("sql",),
    ),
    Bug(
        "temperature of the target never cools", SQL,
        (("left = jnp.clip(1.0 - updates", "left = jnp.clip(1.0 - 0 * updates"),),
        of(TEST_SQL, "a_planned_training_cools_down_to_its_temperature"), ("sql",),
    ),
    Bug(
        "discount squared", SQL,
        (("batch.reward + self.discount * (1.0", "batch.reward + self.discount**2 * (1.0"),),
        of(TEST_SQL, "reward_of_the_second_step_is_discounted_once"), ("sql",),
    ),
    Bug(
        "terminal mask ignored", SQL,
        (("self.discount * (1.0 - batch.terminated) * value", "self.discount * value"),),
        of(TEST_SQL, "only_termination_cuts_the_bootstrap"), ("sql", "goals"),
    ),
    Bug(
        "terminal mask ignored", NAF,
        (("self.discount * (1.0 - batch.terminated) * value", "self.discount * value"),),
        of(TEST_NAF, "only_termination_cuts_the_bootstrap"), ("naf",),
    ),
    Bug(
        "target never moves", SQL, (("old + rate * (new - old)", "old"),),
        of(TEST_SQL, "target_moves_by_its_rate"), ("sql", "goals"),
    ),
    Bug(
        "target of the actor never moves", DDPG,
        (("lambda s: (s.target, s.target_actor, s.updates), state, (*moved, state.updates + 1)",
          "lambda s: (s.target, s.updates), state, (moved[0], state.updates + 1)"),),
        of(TEST_DDPG, "target_of_the_actor_moves_by_its_rate"), ("ddpg",),
    ),
    # DDPG and NAF.
    Bug(
        "actor descends Q", DDPG, (("return -q, (q,", "return q, (q,"),),
        of(TEST_DDPG, "an_actor_climbs_any_q"), ("ddpg",),
    ),
    Bug(
        "gradient flows into the bootstrap", DDPG,
        (("q = jax.vmap(critic)(batch.observation, batch.action)\n",
          "q = jax.vmap(critic)(batch.observation, batch.action)\n"
          "            following = jax.vmap(critic)(\n"
          "                batch.next_observation, jax.vmap(state.target_actor)(batch.next_observation)\n"
          "            )\n"
          "            target = batch.reward + self.discount * (1.0 - batch.terminated) * following\n"),),
        BELLMAN, ("ddpg",),
    ),
    Bug(
        "bootstrap follows the actor, not its target", DDPG,
        (("jax.vmap(state.target_actor)(batch", "jax.vmap(state.actor)(batch"),), BELLMAN, ("ddpg",),
    ),
    Bug(
        "advantage with the wrong sign", QUADRATIC,
        (("value[..., None] - 0.5 *", "value[..., None] + 0.5 *"),), (TEST_QUADRATIC,), ("naf",),
    ),
    Bug(
        "factor of the quadratic form transposed", QUADRATIC,
        (("(action - mean[..., None, :]) @ factor", "(action - mean[..., None, :]) @ factor.mT"),),
        (TEST_QUADRATIC,), ("naf",),
    ),
    Bug(
        "best action not kept in the box", QUADRATIC,
        (("xp.tanh(outputs[..., 1 : 1 + action_size])", "outputs[..., 1 : 1 + action_size]"),),
        (TEST_QUADRATIC,), ("naf",),
    ),
    # Units.
    Bug(
        "observations not normalised in the target", NAF,
        (("(fix(state.critic), fix(state.target))",
          "(fix(state.critic), eqx.tree_at(lambda c: (c.offset, c.scale), state.target, units))"),),
        of(TEST_NAF, CALIBRATION), ("naf",),
    ),
    Bug(
        "observations not normalised in the target of the actor", DDPG,
        (("for actor in (state.actor, state.target_actor))\n",
          "for actor in (state.actor,))\n        actors = (*actors, state.target_actor)\n"),),
        of(TEST_DDPG, "calibration_reaches_the_target_actor"), ("ddpg",),
    ),
    Bug(
        "units of Q not in the target", SQL,
        (("(fix(state.critic), fix(state.target), sampler)", "(fix(state.critic), state.target, sampler)"),),
        of(TEST_SQL, CALIBRATION), ("sql", "goals"),
    ),
    # The loop.
    Bug(
        "noise on in evaluation", DDPG,
        (("        del key\n        return state.actor(observation)",
          "        return self.act(state, observation, key=key)"),),
        of(TEST_DDPG, "noise_is_for_exploration_only"), ("ddpg",),
    ),
    Bug(
        "evaluation explores", ONLINE,
        (("return follow(loop.agent", "return explore(loop.agent"),),
        of(TEST_ONLINE, "an_evaluation_follows_the_policy_and_does_not_explore"), ("ddpg", "naf"),
    ),
    Bug(
        "one key for all lanes", ONLINE,
        (('whole round (lanes, act)."""\n    keys = jax.random.split(jax.random.fold_in(root, step), ',
          'whole round (lanes, act)."""\n    keys = jnp.repeat(jax.random.fold_in(root, step)[None], '),),
        of(TEST_ONLINE, "every_lane_and_every_round_draws_its_own_actions"), ("sql", "goals"),
    ),
    Bug(
        "the same batches every round", LEARNER,
        (("jax.random.split(jax.random.fold_in(root, step), updates)", "jax.random.split(root, updates)"),),
        of(TEST_ONLINE, "every_update_of_every_round_draws_its_own_batch_and_key"), ("naf", "ddpg", "sql"),
    ),
    # Experience.
    Bug(
        "next observation of the wrong row", REPLAY,
        (("return unpack(self.rows[index], self.observation_size, self.action_size)",
          "other = unpack(self.rows[index - 1], self.observation_size, self.action_size)\n"
          "        batch = unpack(self.rows[index], self.observation_size, self.action_size)\n"
          "        return batch._replace(next_observation=other.next_observation)"),),
        (TEST_REPLAY,), ("naf", "ddpg", "sql"),
    ),
    Bug(
        "rows that were never written are drawn", REPLAY,
        (("(count,), 0, self.size)", "(count,), 0, self.capacity)"),), (TEST_REPLAY,), ("naf", "ddpg", "sql"),
    ),
    Bug(
        "a round overwrites the one before", REPLAY,
        (("position = self.inserted % self.capacity", "position = 0 * self.inserted"),),
        (TEST_REPLAY,), ("naf", "ddpg", "sql"),
    ),
    Bug(
        "time limit treated as terminal", LOCKSTEP,
        (("terminated=terminated[kept]", "terminated=done[kept]"),), (TEST_LOCKSTEP,), ("naf", "ddpg", "sql"),
    ),
    Bug(
        "last observation replaced by that of the reset", LOCKSTEP,
        (("return latest, self._final(latest, info, done), info", "return latest, latest, info"),),
        (TEST_LOCKSTEP,), ("naf", "ddpg", "sql"),
    ),
    Bug(
        "rewards scaled", LOCKSTEP,
        (("reward=rewards[kept].astype(np.float32)", "reward=0.5 * rewards[kept].astype(np.float32)"),),
        (TEST_LOCKSTEP,), ("naf", "ddpg", "sql"),
    ),
    Bug(
        "actions scaled by the upper limit alone", LOCKSTEP,
        (("low + (actions + 1.0) * 0.5 * (high - low)", "actions * high"),), (TEST_LOCKSTEP,), ("naf", "ddpg", "sql"),
    ),
    # The sampler. Last, because their tests take longest.
    Bug(
        "fixed and updated particles swapped", SQL,
        (("stein_direction(fixed, updated, gradient)", "stein_direction(updated, fixed, gradient)"),),
        SHAPE, ("sql", "goals"),
    ),
    Bug(
        "one noise for all particles of a state", SQL,
        (("noise = jax.random.normal(key, (observations.shape[0], count, action_size))",
          "noise = jax.random.normal(key, (observations.shape[0], 1, action_size))\n"
          "        noise = jnp.repeat(noise, count, axis=1)"),),
        SHAPE, ("sql", "goals"),
    ),
    Bug(
        "gradient flows through the Stein direction", SQL,
        (("= lax.stop_gradient(stein_direction(fixed, updated, gradient))",
          "= stein_direction(fixed, updated, gradient)"),),
        SHAPE, ("sql", "goals"),
    ),
    Bug(
        "sampler frozen", SQL,
        (("return eqx.apply_updates(sampler, step), optimiser, info", "return sampler, optimiser, info"),),
        FLAT, ("sql", "goals"),
    ),
    Bug(
        "squashing correction missing", SQL,
        (("jnp.sum(energy + log_jacobian(u))", "jnp.sum(energy)"),), FLAT, ("sql", "goals"),
    ),
    Bug(
        "squashing correction with the wrong sign", SQL,
        (("jnp.sum(energy + log_jacobian(u))", "jnp.sum(energy - log_jacobian(u))"),), FLAT, ("sql", "goals"),
    ),
    # Compositions and their certificates.
    Bug(
        "correction of the present state, not of the next", CORRECT,
        (("return discount * (kappa + soft_minimum(", "return kappa + discount * (soft_minimum("),),
        (TEST_CORRECT,), (),
    ),
    Bug(
        "soft maximum in place of the minimum", CORRECT,
        (("-temperature * logsumexp(log_weight - x / temperature)",
          "temperature * logsumexp(log_weight + x / temperature)"),),
        (TEST_CORRECT,), (),
    ),
    Bug(
        "divergence with the wrong sign", BOUNDS,
        (("kappa = combine_values(values, weights) - soft_value(total, log_density, temperature)",
          "kappa = soft_value(total, log_density, temperature) - combine_values(values, weights)"),),
        (TEST_BOUNDS,), (),
    ),
    Bug(
        "bound of the policy without what follows", BOUNDS,
        (("discount * expect(lemma + theorem, log_weight)", "discount * expect(lemma, log_weight)"),),
        (TEST_BOUNDS,), (),
    ),
    Bug(
        "regret of the next state alone", BOUNDS,
        (("discount * (local + expect(regret, log_weight))", "discount * local"),), (TEST_BOUNDS,), (),
    ),
    Bug(
        "policies of gpi followed by the sum's actions", "training/gpi.py",
        (("own = [log_weights(x, log_density, alpha) for x, alpha in zip(q, temperatures, strict=True)]",
          "own = [log_weight for _ in q]"),),
        of("tests/training/test_gpi.py", "draws_are_weighted_by_each_skills_own_policy"), (),
    ),
    # Found by looking for faults that no test noticed.
    Bug(
        "no target network", SQL,
        (("state.target, state.sampler, batch", "state.critic, state.sampler, batch"),),
        of(TEST_SQL, "the_loss_is_the_bellman_error_of_the_target_network"), ("sql",),
    ),
    Bug(
        "sampler follows the target network", SQL,
        (("state.critic, state.sampler, state.sampler_opt", "state.target, state.sampler, state.sampler_opt"),),
        of(TEST_SQL, "the_sampler_follows_the_critic_and_not_its_target"), ("sql",),
    ),
    Bug(
        "unit of the critic ignored", SQL,
        (("self.temperature if self.critic_unit is None else self.critic_unit", "self.temperature"),),
        of(TEST_SQL, "the_critics_unit_is_the_temperature_unless_given"), (),
    ),
    Bug(
        "extraction at the default temperature", "training/offline.py",
        (("return SQL(temperature=temperature, sampler_learning_rate", "return SQL(sampler_learning_rate"),),
        of("tests/training/test_offline.py", "a_policy_is_extracted_at_the_temperature_of_the_composition"), (),
    ),
    Bug(
        "correction bootstraps in the present state", "training/correct.py",
        (("learner.target(batch.next_obs", "learner.target(batch.obs"),),
        SOLVED, (),
    ),
    Bug(
        "level of the correction shifted the wrong way", "training/correct.py",
        (("values.level + shift, learner.target.level + shift", "values.level - shift, learner.target.level - shift"),),
        SOLVED, (),
    ),
    Bug(
        "members learn from the same rows", "training/correct.py", (("x[rows[index]]", "x[index]"),),
        of("tests/training/test_solve.py", "every_member_learns_from_its_own_rows"), (),
    ),
    Bug(
        "every block of states has the same draws", "training/correct.py",
        (("jax.random.fold_in(root, numbers[0])", "jax.random.fold_in(root, 0)"),),
        of("tests/training/test_correct.py", "a_survey_repeats_itself_and_knows_terminal_steps"), (),
    ),
    Bug(
        "correction bootstraps at other weights", "training/reweigh.py",
        (("[seen.next_observation, weights]", "[seen.next_observation, weights[::-1]]"),),
        of("tests/training/test_correct.py", "each_row_of_all_weights_has_its_own_weights_and_their_temperature"), (),
    ),
    Bug(
        "bounds exchanged", "explanation.py",
        (("c, lemma, theorem, later = (heads", "c, theorem, lemma, later = (heads"),), FIGURES, (),
    ),
    Bug(
        "regret without what is lost here", "explanation.py",
        (("regret = _lose_here(c, log_weight, temperature) + expect", "regret = expect"),),
        FIGURES, (),
    ),
    Bug(
        "overestimate added to what acting at random loses", "explanation.py",
        (("_interval(above_random - overestimate)", "_interval(above_random + overestimate)"),),
        of("tests/test_explanation.py", "what_acting_at_random_loses_is_beside_the_optimum_and_not_the_sum"), (),
    ),
    Bug(
        "touch of the tower forgiven", "tasks/stacking.py",
        (('(readings["held"] > 0.0) & (readings["collided"] == 0.0)', '(readings["held"] > 0.0)'),),
        of("tests/tasks/test_stacking.py", "success_of_avoiding_is_to_be_near_without_a_touch"), (),
    ),
    Bug(
        "friction added to what the motors do", "tasks/sawyer.py",
        (("data.ctrl * limits - damping", "data.ctrl * limits + damping"),),
        of("tests/tasks/test_sawyer.py", "the_force_is_what_the_motors_do_beyond_their_friction"), (),
    ),
    Bug(
        "effort is rewarded", "tasks/peaks.py", (('"action": -ACTION_WEIGHT', '"action": ACTION_WEIGHT'),),
        of("tests/tasks/test_peaks.py", "the_reward_is_the_height_less_the_effort"), (),
    ),
)  # fmt: skip
