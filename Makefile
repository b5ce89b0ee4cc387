# Each target sets up what it needs in .venv, so any of them may be the first command after a clone.
# Needed: make, and Python 3.11 or newer; another one than python3 with `make demo PYTHON=python3.12`.

PYTHON ?= python3
FILE ?= README.md
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test again lint types check chaos chaos-long chaos-matrix mutants bench maps screenshots clean

help:
	@echo "make demo     a report on README.md by a team of agents; on another text with FILE=…"
	@echo "make test     the tests; on two cores; some of them with ARGS='-k join', one after another with ARGS='-n 0'"
	@echo "make again    the tests that failed last, one after another: each passes three times, or it is broken"
	@echo "make check    lint, types and tests: what has to pass before a commit"
	@echo "make chaos    workers, server and connections crashed under load, and nothing lost or doubled"
	@echo "              (chaos-long: 1,100 runs, 300 faults; chaos-matrix: a death at every bus operation)"
	@echo "make mutants  break a copy of the code in one way after the other: which test catches which (one with ARGS=name)"
	@echo "make bench    how fast it is on this machine; a part of it with ARGS=core"
	@echo "make maps     write the file maps in the folders' READMEs anew"
	@echo "make screenshots  pictures of the console, of real runs, in screenshots/; and the one that README shows"
	@echo "make clean    remove what the other targets made; runs in .baton stay"

demo: $(READY)
	@$(BIN)/baton run report document=@"$(FILE)"

test: $(READY)
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

again: $(READY)
	@$(BIN)/python -m tests.again

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy
	@$(BIN)/mypy tests

check: lint types test

# Crashes under load, then the checker: with a fixed seed, and with one that is drawn and printed, on one server; then a
# cluster of three, and a death at every bus operation of one flow.
chaos: $(READY)
	@$(BIN)/python -m tests.chaos --seed 1 --runs 40 --kills 8
	@$(BIN)/python -m tests.chaos --runs 40 --kills 8
	@$(BIN)/python -m tests.chaos --runs 30 --kills 5 --servers 3
	@$(BIN)/python -m tests.chaos --matrix spread

chaos-long: $(READY)
	@$(BIN)/python -m tests.chaos --runs 700 --kills 110 --long $(ARGS)
	@$(BIN)/python -m tests.chaos --runs 400 --kills 70 --long --servers 3 $(ARGS)

chaos-matrix: $(READY)
	@$(BIN)/python -m tests.chaos --matrix

mutants: $(READY)
	@$(BIN)/python -m tests.mutants $(ARGS)

bench: $(READY)
	@$(BIN)/python -m tests.bench $(ARGS)

maps: $(READY)
	@$(BIN)/python -m tests.maps

# The stamp is written last: a set-up that broke off is done again, one that is complete is not.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Baton needs Python 3.11 or newer. '$(PYTHON) --version' says: `$(PYTHON) --version 2>&1 | head -n 1`"; \
	  echo "Install one, or name one that you have: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
	@echo "Setting up .venv with the versions in requirements.lock (once; about a minute) …" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@

screenshots: $(READY)
	@$(BIN)/python -m tests.screenshots

clean:
	rm -rf .venv screenshots .mypy_cache .pytest_cache .ruff_cache .hypothesis dist bench.json
	find actors bus schemas tests -name __pycache__ -type d -prune -exec rm -rf {} +
