# `make study` and `make test` set everything up themselves: on a fresh machine only python3 (3.11 or newer) is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DOCS   := $(VENV)/.ready-docs
FAST   := $(addprefix tests/,core lab/data lab/evaluate lab/report recipes vlm/families vlm/in_llm vlm/methods vlm/scorers \
	ops/test_long_conv.py ops/test_resolvent.py ops/test_token_merging.py ops/test_tokens.py test_public_face.py)

# Installation leaves bytecode to the first import (below). Without a place for it every process would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup study test test-fast coverage bench docs lint format clean

help: ## all targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Touched last, so an interrupted installation is repeated. Newer requirements install anew; otherwise this is instant.
# Without compiling 16,000 files to bytecode, of which a run imports a fifth: Python does that itself at first import.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "salience needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0])'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); on a fresh machine this takes a few minutes."
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt -e '.[vlm,study,dev]'
	@touch $@

setup: $(READY) ## install everything into .venv

study: $(READY) ## the whole comparison: build/study/report.html, results.json, figures/
	$(BIN)/salience study --out build/study

# A file's tests stay in one process and share its fixtures. One thread each: two processes of two threads are slower.
test: $(READY) ## every test that needs neither a GPU nor the internet
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile -m "not gpu and not network"

# Tests without kernel compilation, without training and without studies, for use while a change is written.
test-fast: $(READY) ## unit tests only, under two minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile -m "not gpu and not network and not slow" $(FAST)

coverage: $(READY) ## every test with line coverage: build/coverage.xml, build/coverage/index.html
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile -m "not gpu and not network" \
		--cov --cov-report=term:skip-covered --cov-report=xml:build/coverage.xml --cov-report=html:build/coverage

$(DOCS): $(READY)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS) ## the documentation: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(READY) ## our kernels beside their peers and the machine's limits: build/bench.json; quiet machine, ten minutes
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[peers]'
	$(BIN)/python benchmarks/run.py --out build/bench.json

lint: $(READY) ## ruff, mypy --strict, the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format and fix with ruff
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove all that was built; .venv stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
