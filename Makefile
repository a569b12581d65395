# `make study` and `make test` set everything up themselves: on a fresh machine only python3 (3.11 or newer) is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Installation leaves bytecode to the first import (below); where Python may not keep it, every process compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup study test bench lint format clean

help: ## what can be made
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Touched last, so an interrupted installation is taken up again; newer requirements install anew, else this is instant.
# Without compiling 16,000 files to bytecode, of which a run imports a fifth: Python does that itself at first import.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "salience needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0])'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); on a fresh machine this takes a few minutes."
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt -e '.[vlm,study,dev]'
	@touch $@

setup: $(READY) ## .venv with everything in it

study: $(READY) ## the whole comparison: build/study/report.html, results.json, figures/
	$(BIN)/salience study --out build/study

# A file's tests stay in one process, whose fixtures they share; one thread each, since two that wait for two are slower.
test: $(READY) ## every test that needs neither a GPU nor the internet
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile -m "not gpu and not network"

bench: $(READY) ## Mamba beside its peers and the machine's floor: build/bench.json; a quiet machine, about ten minutes
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[peers]'
	$(BIN)/python benchmarks/run.py --out build/bench.json

lint: $(READY) ## ruff, mypy --strict, the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## ruff, in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## what study and test built; .venv stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
