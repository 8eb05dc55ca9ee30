# Every target runs in $(VENV), which is made on first use. `make VENV=FOLDER ...` takes another one.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python -m
STAMP := $(VENV)/.installed

.PHONY: help demo test lint docs bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(STAMP) ## generate the embedded data set and show it
	$(RUN) recipes.demo

test: lint ## lint, then the tests, on all cores
	$(RUN) pytest --numprocesses auto --dist loadfile --benchmark-disable

lint: $(STAMP) ## style, format, types and the direction of imports
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(VENV)/bin/lint-imports

docs: $(STAMP) ## the documentation site, into site/
	$(RUN) mkdocs build --strict

bench: $(STAMP) ## the benchmarks
	$(RUN) pytest tests/benchmarks --benchmark-only

clean: ## remove the environment, caches and what was generated (not data, not runs)
	rm -rf .venv demo dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .benchmarks
	find d3hr_datasets recipes tests -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@
