# nnctl: `make help` lists the targets.

PYTHON ?= python3
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := .venv/$(SCRIPTS)
OLDEST := .venv-oldest
OLDEST_BIN := $(OLDEST)/$(SCRIPTS)

.DEFAULT_GOAL := help
.PHONY: help train test test-slow torture mutants test-oldest cluster-demo bench bench-sweep bench-scale bench-presets lint format schema readme pictures clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON ($(PYTHON)) makes the environment; NNCTL_TEST_MNIST is a folder with MNIST's files; SEED is the seed of make torture and make mutants."

train: .venv/installed  ## install nnctl, train configs/sigmoid.yaml, and evaluate the run
	@result=$$($(BIN)/nnctl train configs/sigmoid.yaml) && echo "$$result" \
		&& $(BIN)/nnctl eval "$$(echo "$$result" | tail -n 1)"

test: .venv/developing  ## run the tests, but for the slow ones, in less than 4 minutes
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow"

test-slow: .venv/developing  ## run the slow tests: cluster, browsers, packaging, README, books
	$(BIN)/python -m pytest -n auto --dist loadgroup -m slow

torture: .venv/developing  ## run many more cases of crashes, failing disks and hostile input
	$(BIN)/python -m pytest -n auto --dist loadgroup tests/torture --torture $(if $(SEED),--torture-seed $(SEED))

mutants: .venv/developing  ## measure how many of 200 small faults the tests detect; takes an hour or more
	$(BIN)/python -m pip install --quiet --editable '.[dev,mutants]'
	$(BIN)/python -m tests.mutants $(if $(SEED),--seed $(SEED))

# Old versions call what newer ones of their own dependencies have deprecated: no error there.
test-oldest:  ## run the fast tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear $(OLDEST)
	$(PYTHON) tests/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST_BIN)/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[dev]'
	$(OLDEST_BIN)/python -m pytest -n auto --dist loadgroup -m "not slow" -W ignore::DeprecationWarning

cluster-demo: .venv/developing  ## run a sweep on a Dask cluster of this machine: a scheduler and two workers
	$(BIN)/python -m tests.sweep.cluster_demo

bench: .venv/developing  ## time epochs and processes beside PyTorch, JAX and scikit-learn, where installed
	$(BIN)/python -m tests.benchmarks.epochs

bench-sweep: .venv/developing  ## time sweeps: two workers beside one, and scikit-learn's grid search
	$(BIN)/python -m tests.benchmarks.sweeps

bench-scale: .venv/developing  ## time how an epoch grows with the network, beside its products alone
	$(BIN)/python -m tests.benchmarks.scale

readme: .venv/developing  ## write the generated parts of the README anew: its reference and help
	$(BIN)/python -m tests.readme.generate

pictures: .venv/developing  ## draw the README's pictures anew; needs Chromium
	$(BIN)/python -m tests.readme.terminal
	$(BIN)/python -m tests.readme.page

bench-presets: .venv/developing  ## time presets beside the same recipes in PyTorch
	$(BIN)/python -m tests.benchmarks.presets

lint: .venv/developing  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/developing  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: .venv/installed  ## write the JSON Schemas in configs anew
	$(BIN)/python -m nnctl.config configs

clean:  ## remove the environment and what tools have left
	rm -rf .venv $(OLDEST) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/developing: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
