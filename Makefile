# Each target is one line of real work and safe to repeat.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test lint serve constraints clean

help:                ## list the targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/: .*##/\t/'

setup: $(STAMP)      ## make .venv with everything in it

# The stamp is written last: an interrupted set-up starts again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

test: $(STAMP)       ## lint, types, floors and every test
	$(BIN)/python -m pytest

lint: $(STAMP)       ## ruff, mypy strict, import-linter
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

demo: $(STAMP)       ## convert the models, serve one, compare it with the original
	$(BIN)/python models/demo.py

serve: $(STAMP)      ## start the service on 127.0.0.1:8080
	$(BIN)/python -m service
