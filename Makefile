# Each target is one line of real work and safe to repeat.
.DEFAULT_GOAL := help
# The first Python on the path that bnfold runs on, whatever it is called; or say: make setup PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help setup demo test lint serve bench zoo constraints clients cluster-test

help:                ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/: .*##/\t/'

setup: $(STAMP)      ## make .venv with everything in it

# The stamp is written last, so an interrupted set-up starts again from an empty .venv.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "bnfold needs Python 3.11, 3.12 or 3.13, and none is on the path." >&2; exit 1; }
	@echo "Setting up $(VENV): a few minutes the first time, because TensorFlow is large."
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --require-hashes -r constraints.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

CLIENTS := .clients

clients: $(CLIENTS)/.installed ## make .clients: Triton's and KServe's clients, which tests ask the service with

$(CLIENTS)/.installed: tests/service/clients.txt
	$(PYTHON) -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/service/clients.txt
	@touch $@

test: $(STAMP)       ## lint, types, floors and every test
	$(BIN)/python -m pytest

# Takes PostgreSQL and RabbitMQ, of which it starts servers of its own: apt-get install postgresql rabbitmq-server
cluster-test: $(STAMP) ## jobs on many machines: kills, lost messages, restarts, and a load
	BNFOLD_TEST_EVERYTHING=1 $(BIN)/python -m pytest tests/service/cluster tests/service/cluster/outages.py tests/service/cluster/load.py

lint: $(STAMP)       ## ruff, mypy strict, import-linter
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

demo: $(STAMP)       ## convert the models, serve one, compare it with the original
	$(BIN)/python models/demo.py

serve: $(STAMP)      ## start the service on 127.0.0.1:8080
	$(BIN)/python -m service

bench: $(STAMP)      ## fold beside other tools, as whole processes
	$(BIN)/python -m bench.fold

# Goes on where it stopped; `make zoo ZOO=--fresh` starts again. Takes an hour, and is no test.
zoo: $(STAMP)        ## convert all of keras.applications, account for every batch norm
	$(BIN)/python models/applications.py --write $(ZOO)

# Keeps the pins that still hold; `make constraints UPGRADE=--upgrade` takes the newest of everything.
constraints: $(STAMP) ## pin every dependency again, with hashes, for all platforms
	$(BIN)/uv pip compile pyproject.toml --extra all --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(UPGRADE) --quiet -o constraints.txt
	$(BIN)/uv pip compile tests/service/clients.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(UPGRADE) --quiet -o tests/service/clients.txt
