# Two commands matter: `make run` and `make test`. Both set up .venv first; nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# dvc, prefect and the stages find each other by PATH
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
# a run is many processes: what one has compiled the others need not
unexport PYTHONDONTWRITEBYTECODE

# Several files of tests at a time, each in one process: what a file shares is made once. Longest first, see tests/conftest.py
AT_ONCE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-slow lint ui bench setup clean

run: $(VENV)/.installed ## the whole pipeline on the sample people, then where the results are
	@$(BIN)/facemill run pipeline

test: $(VENV)/.installed-dev ## everything that CI runs but lint
	@$(BIN)/python -m pytest -m "not slow" $(AT_ONCE)

test-slow: $(VENV)/.installed-dev ## what takes more than a minute each
	@$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev ## style, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

ui: $(VENV)/.installed ## the Prefect page; `facemill login` prints its address and the login that it asks for
	@$(BIN)/facemill server

BENCHMARKS := alignment archive changes collect convert dedup dsfd extract inference parts refresh repro train
bench: $(VENV)/.installed-dev ## every benchmark that needs nothing but this folder; the others want data of yours, see benchmarks/
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

setup: $(VENV)/.installed

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "facemill needs Python 3.11 or newer; name one with PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: on Debian, apt install python3-venv"; exit 1; }

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt deploy/install.py
	@echo "installing into $(VENV) (up to a minute the first time, and what the network takes)"
	@$(BIN)/python deploy/install.py
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/python deploy/install.py dev
	@touch $@

clean: $(VENV)/.installed ## removes results and scratch after a question, not .venv
	@$(BIN)/facemill clean
