# Each target does the set-up that it needs, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test test-slow fuzz check bench docs screenshots clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "innerloop needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/innerloop demo --out demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-slow: setup
	$(BIN)/python -m pytest -m slow -o faulthandler_timeout=0

fuzz: setup
	$(BIN)/python -m pytest -m slow -o faulthandler_timeout=0 tests/fuzz

check: setup
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python docs/generate.py --check

# The peers live in a virtual environment of their own; learn2learn comes as its source archive, whose build fails.
PEERS := .venv-peers
$(PEERS)/.ready: pyproject.toml constraints.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . higher==0.2.1 torchopt==0.7.3 parallel-metalearn==0.5.6
	$(PEERS)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest $(PEERS)/peers learn2learn==0.2.0
	cd $(PEERS)/peers && tar xzf learn2learn-0.2.0.tar.gz
	touch $@

bench: setup $(PEERS)/.ready
	$(BIN)/innerloop study run performance --jobs 1
	$(BIN)/python docs/generate.py

docs: setup
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict

screenshots: setup
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf $(VENV) .venv-peers demo build dist .pytest_cache .ruff_cache .hypothesis
