# Each target does all of its own set-up: a virtual environment in .venv, installed through constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup test demo bench lint clean

help:
	@echo "make demo    simulate three tilt series and process them, with scores against the truth, into demo/"
	@echo "make test    run the tests"
	@echo "make bench   list the benchmarks; make bench NAME=<name> runs one"

setup:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "tiltwise needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@if ! cmp -s constraints.txt $(VENV)/.constraints || ! cmp -s pyproject.toml $(VENV)/.pyproject; then \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]" && \
	  cp constraints.txt $(VENV)/.constraints && cp pyproject.toml $(VENV)/.pyproject; \
	fi

# One process a core, each of one thread: two threads that share a core wait for each other most of the time.
test: setup
	@OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

demo: setup
	$(BIN)/tiltwise demo --output demo

bench: setup
	@$(BIN)/python benchmarks/run.py $(NAME)

lint: setup
	$(BIN)/ruff check src tests benchmarks examples && $(BIN)/ruff format --check src tests benchmarks examples && $(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo
