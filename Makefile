# nnctl: `make help` lists the targets.

PYTHON ?= python3
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := .venv/$(SCRIPTS)
OLDEST := .venv-oldest
OLDEST_BIN := $(OLDEST)/$(SCRIPTS)

BUNDLED := nnctl/analysis/photographs

.DEFAULT_GOAL := help
.PHONY: help train bundle test test-slow torture mutants test-oldest cluster-demo bench bench-sweep bench-scale bench-presets lint format docs schema network reference pictures clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON ($(PYTHON)) creates the environment; NNCTL_TEST_MNIST is a folder with MNIST's files; SEED is the seed of make torture and make mutants."

train: .venv/installed  ## install nnctl, train the preset sigmoid, and evaluate the run
	@$(BIN)/nnctl train sigmoid && $(BIN)/nnctl eval latest

bundle: .venv/installed  ## collect nnctl, its dependencies and MNIST in build/bundle, to install without the internet
	$(BIN)/python -m pip wheel --quiet --wheel-dir build/bundle/wheels '.[all]'
	$(BIN)/nnctl download --data-dir build/bundle/data

test: .venv/developing  ## run the tests except the slow ones, in less than 4 minutes
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow"

test-slow: .venv/developing  ## run the slow tests: cluster, browsers, packaging, documentation, books
	$(BIN)/python -m pytest -n auto --dist loadgroup -m slow

torture: .venv/developing  ## run thousands of tests with crashes, failing disks and malicious files
	$(BIN)/python -m pytest -n auto --dist loadgroup tests/torture --torture $(if $(SEED),--torture-seed $(SEED))

mutants: .venv/developing  ## mutation testing: measure how many of 200 small bugs the tests detect; takes an hour or more
	$(BIN)/python -m pip install --quiet --editable '.[dev,mutants]'
	$(BIN)/python -m tests.mutants $(if $(SEED),--seed $(SEED))

# Old versions call functions that are deprecated in their own dependencies: not an error here.
test-oldest:  ## run the fast tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear $(OLDEST)
	$(PYTHON) tests/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST_BIN)/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[dev]'
	$(OLDEST_BIN)/python -m pytest -n auto --dist loadgroup -m "not slow" -W ignore::DeprecationWarning

cluster-demo: .venv/developing  ## run a sweep on a local Dask cluster: a scheduler and two workers
	$(BIN)/python -m tests.sweeps.cluster_demo

bench: .venv/developing  ## compare the speed of training with PyTorch, JAX and scikit-learn, if installed
	$(BIN)/python -m tests.benchmarks.epochs

bench-sweep: .venv/developing  ## compare the speed of sweeps: two workers, one worker, and scikit-learn's grid search
	$(BIN)/python -m tests.benchmarks.sweeps

bench-scale: .venv/developing  ## time epochs of growing networks, and their matrix products alone
	$(BIN)/python -m tests.benchmarks.scale

network: .venv/installed  ## retrain the network that ships with nnctl, for predict without a run
	rm -rf $(BUNDLED)
	$(BIN)/nnctl train configs/photographs.yaml --run-dir $(BUNDLED)
	rm -f $(BUNDLED)/last.npz $(BUNDLED)/metrics.jsonl $(BUNDLED)/.lock

reference: .venv/developing  ## regenerate the reference in the documentation: keys, presets, help
	$(BIN)/python -m tests.documentation.generate

docs: .venv/installed  ## build the website of the documentation in build/site
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m mkdocs build --strict --config-file docs/mkdocs.yml

pictures: .venv/developing  ## regenerate the images of the documentation; needs Chromium
	$(BIN)/python -m tests.documentation.terminal
	$(BIN)/python -m tests.documentation.page

bench-presets: .venv/developing  ## compare the speed of the presets with the same training in PyTorch
	$(BIN)/python -m tests.benchmarks.presets

lint: .venv/developing  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/developing  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: .venv/installed  ## regenerate the JSON Schemas in configs
	$(BIN)/python -m nnctl.config configs

clean:  ## remove the environment and the output of tools
	rm -rf .venv $(OLDEST) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/developing: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
