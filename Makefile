# make demo   pip-only data and weights -> trained, evaluated, searchable model (runs/openmoji/report.html)
# make test   lint, type check and the fast tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# processes that run tests, a file at a time each; 0 runs them in one
JOBS   ?= 2
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q

.PHONY: install demo test test-slow lint format clean
.DEFAULT_GOAL := test

install: $(STAMP)

$(STAMP): pyproject.toml setup.py requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "modalign needs Python 3.11 or newer; say which with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/modalign train configs/proclip/openmoji.yaml

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'slow or not slow'

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
