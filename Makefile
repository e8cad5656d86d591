# Needs only make and Python 3.11 to 3.13 with its venv module. Everything else goes into .venv, pinned by hash.
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-all bench yardsticks chaos crashes faults fuzz scenes soak same-bits properties reliability lock clean rebuild

# Packages of the surroundings (a sourced ROS workspace, for one) must not leak in.
unexport PYTHONPATH PYTHONHOME

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install -qq --only-binary :all: --require-hashes
# One version of each package for every Python, wheels only, no addresses in the files.
LOCK = uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
  --only-binary :all: --custom-compile-command "make lock" $(LOCK_ARGS)
DEMO_ARGS ?=
PYTEST_ARGS ?=

# Made anew where the interpreter is gone or the folder was moved.
STALE := $(shell [ -x $(BIN)/python ] && [ "$$(cat .venv/.created 2>/dev/null)" = "$(CURDIR)" ] || echo rebuild)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do \
	  printf '  make %-10s %s\n' "$$name" "$$text"; done

setup: .venv/.run  ## install qompose into .venv
	@echo "ready: $(BIN)/qompose"

setup-dev: .venv/.dev  ## the same, with the tools of the checks
	@echo "ready: $(BIN)/qompose"

demo: .venv/.run  ## run the demonstration (DEMO_ARGS="..." passes options)
	@$(BIN)/qompose demo $(DEMO_ARGS)

test: .venv/.dev  ## check style, types and layers, and run the fast tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYRIGHT_PYTHON_GLOBAL_NODE=0 PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: PYTEST_ARGS += -m ""
test-all: test reliability  ## the same, with the slow tests and the full reliability benchmarks

bench: .venv/.run  ## run the benchmarks
	$(BIN)/python -m benchmarks.sampler_fidelity
	$(BIN)/python -m benchmarks.soft_value
	$(BIN)/python -m benchmarks.reach
	$(BIN)/python -m benchmarks.sawyer_expert
	$(BIN)/python -m benchmarks.update_speed
	taskset -c 0 $(BIN)/python -m benchmarks.act_speed
	$(BIN)/python -m benchmarks.pusher
	$(BIN)/python -m benchmarks.correction
	$(BIN)/python -m benchmarks.ranking
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.fine_tune_point
	$(BIN)/python -m benchmarks.gates --resume
	$(BIN)/python -m benchmarks.measurements
	$(BIN)/python -m benchmarks.testing_page

yardsticks: .venv-yardsticks/.ready  ## set up Stable-Baselines3 and SBX for benchmarks.yardsticks (docs/yardsticks.md)
	@echo "ready: $(BIN)/python -m benchmarks.yardsticks"

chaos: .venv/.run  ## kill trainings 100 times, resume them, compare every bit
	$(BIN)/python -m benchmarks.chaos

crashes: .venv/.run  ## read a million crash states of the log, and torn checkpoints
	$(BIN)/python -m benchmarks.crashes

fuzz: .venv/.run  ## load a million mutated skills under an audit hook
	$(BIN)/python -m benchmarks.fuzz

scenes: .venv/.run  ## compile hostile scenes and meshes that a user might name
	$(BIN)/python -m benchmarks.scenes

soak: .venv/.run  ## train for 173 000 steps and look for what grows
	$(BIN)/python -m benchmarks.soak

same-bits: .venv/.run  ## train in several processes on one core and on two, compare every bit
	$(BIN)/python -m benchmarks.same_bits

properties: .venv/.dev  ## count and check what holds for whatever Hypothesis draws
	$(BIN)/python -m benchmarks.properties

faults: .venv/.dev  ## count and check hostile skills, faults of environments, planted divergences
	$(BIN)/python -m benchmarks.faults

# In the order of what finds most in a minute.
reliability: crashes faults properties scenes fuzz same-bits soak chaos  ## all of these, in full: results/reliability.json

lock:  ## write requirements/ anew (needs uv; LOCK_ARGS=--upgrade takes newer versions)
	$(LOCK) pyproject.toml requirements/build.in --extra video --extra dev -o requirements/dev.txt
	$(LOCK) pyproject.toml requirements/build.in --extra video -c requirements/dev.txt -o requirements/run.txt
	$(LOCK) requirements/yardsticks.in -c requirements/run.txt -o requirements/yardsticks.txt

clean:  ## remove .venv, caches and built packages
	rm -rf .venv .venv-yardsticks build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

rebuild:

# A half-made environment is removed, and the stamp is written last, so that an interrupted run starts over.
.venv/.created: $(STALE)
	@if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; else set -- python3.13 python3.12 python3.11 python3 python; fi; \
	found=; bare=; \
	for python in "$$@"; do \
	  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || continue; \
	  if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then found=$$python; break; fi; bare=$$python; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "$$bare has no venv module: install it (on Debian and Ubuntu the package python3-venv)" >&2; exit 1; fi; \
	if [ -z "$$found" ]; then \
	  echo "needs Python 3.11, 3.12 or 3.13: install one, or name it with make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	echo "setting up .venv with $$("$$found" --version) (about 1 minute) ..."; \
	"$$found" -m venv --clear .venv && printf '%s' "$(CURDIR)" > $@ || { rm -rf .venv; exit 1; }

.venv/.run: .venv/.created requirements/run.txt pyproject.toml
	@echo "installing the pinned packages of requirements/run.txt ..."
	@$(INSTALL) -r requirements/run.txt
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.run requirements/dev.txt
	@echo "installing the tools of requirements/dev.txt ..."
	@$(INSTALL) -r requirements/dev.txt
	@touch $@

# Of the same Python as .venv, and of no use to qompose itself: nothing of it is installed there, nor the other way round.
.venv-yardsticks/.ready: .venv/.run requirements/yardsticks.txt
	@$(BIN)/python -c 'import sys; sys.exit("the pinned PyTorch is for Python 3.11: make clean setup PYTHON=python3.11" \
	  if sys.platform == "linux" and sys.version_info[:2] != (3, 11) else 0)'
	@echo "installing the pinned packages of requirements/yardsticks.txt into .venv-yardsticks ..."
	@$(BIN)/python -m venv --clear .venv-yardsticks
	@.venv-yardsticks/bin/python -m pip install -qq --only-binary :all: --require-hashes -r requirements/yardsticks.txt
	@touch $@
