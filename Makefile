# maxrl_bench: two commands do all the set-up, `make sweep` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
CLI := $(VENV)/bin/maxrl-bench

# What `make sweep` runs: `make sweep EXPERIMENT=objectives PROFILE=smoke WORKERS=1`
PROFILE ?= laptop
EXPERIMENT ?=
WORKERS ?=
SWEEP_FLAGS = --profile $(PROFILE) $(if $(WORKERS),--workers $(WORKERS))

.DEFAULT_GOAL := help
.PHONY: help sweep smoke test test-trainers check lint types docs tune plots readme bench stress fuzz clean

help: ## list these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(VENV)/.base: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "maxrl_bench needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up $(VENV) (about a minute) ..."
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "Adding the development tools ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@$(PIP) --editable '.[docs]'
	@touch $@

sweep: $(VENV)/.base ## reproduce the ablations: run the experiments, write results/ and plots/ (resumes)
	$(CLI) sweep $(EXPERIMENT) $(SWEEP_FLAGS)

smoke: $(VENV)/.base ## the same path with tiny settings, in under two minutes
	$(CLI) sweep $(EXPERIMENT) --profile smoke --results build/smoke/results --plots build/smoke/plots

test: $(VENV)/.dev ## run the tests, on all cores
	$(PY) -m pytest --numprocesses logical --dist worksteal

# Pins of other trainers conflict with TRL's, so that these have an environment of their own (Python up to 3.12).
TRAINERS := build/trainers
test-trainers: ## run the tests of the adapters for verl, SkyRL and OpenRLHF (installs 3 GB in some ten minutes)
	@test -x $(TRAINERS)/bin/python || $(PYTHON) -m venv $(TRAINERS)
	@$(TRAINERS)/bin/python -m pip install --quiet --requirement tests/integrations/requirements.txt --editable .
	@$(TRAINERS)/bin/python -m pip install --quiet --no-deps \
		verl==0.9.1 skyrl==0.3.0 skyrl-gym==0.4.0 openrlhf==0.11.2
	$(TRAINERS)/bin/python -m pytest tests/integrations

lint: $(VENV)/.dev ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.dev ## check the types
	$(PY) -m mypy

docs: $(VENV)/.docs ## build the documentation as a site, build/site/index.html; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

check: lint types docs test ## what CI runs: lint, types, documentation, tests

tune: $(VENV)/.base ## choose learning rates on the validation split; writes experiments/learning_rates.toml
	$(CLI) sweep learning_rate --profile tune $(if $(WORKERS),--workers $(WORKERS))
	$(CLI) tune learning_rate

plots: $(VENV)/.base ## redraw every figure and the report from the tables alone
	$(CLI) plot $(EXPERIMENT)

readme: $(VENV)/.base ## fill README.md and docs/paper.md with the numbers of the tables, by experiments/findings.toml
	$(PY) -m maxrl_bench.report.findings README.md docs/paper.md

# The version that `make bench` compares with.
PREVIOUS ?= c309639
bench: $(VENV)/.base ## time the rollout engine against its previous version, the textbook loop and others
	@rm -rf build/bench/previous && mkdir -p build/bench/previous
	@git archive $(PREVIOUS) maxrl_bench envs 2>/dev/null | tar -x -C build/bench/previous 2>/dev/null || \
		echo "This checkout does not hold commit $(PREVIOUS): no comparison with the previous version."
	$(CLI) bench $$(test -d build/bench/previous/envs && echo --against build/bench/previous)

stress: $(VENV)/.dev ## the long fault-injection tests
	$(PY) -m pytest -m stress

fuzz: $(VENV)/.dev ## thousands of mutated experiments, claims, command lines and results, seeded
	$(PY) -m pytest -m fuzz -s

clean: ## remove the environment and build products; results/ and plots/ stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
