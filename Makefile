# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help bench bench-gpu demo demo-check matrix test test-fast test-gpu fuzz lint types check docs dist tables figures verdicts report clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e .
	touch $@

.venv/installed-for-tests: .venv/installed
	$(BIN)/pip install --quiet -e ".[test,docs]"
	touch $@

demo: .venv/installed  ## install, run IUF on synthetic VisA, print the forgetting matrix
	$(BIN)/iufbench run --protocol visa_8_1x4 --strategy iuf --synthetic --eval-unseen

demo-check: .venv/installed-for-tests  ## three seeds of joint, finetune, frozen and iuf, compared with the goals (1 h)
	$(BIN)/python tests/perf/demo_check.py

matrix: .venv/installed  ## every strategy on two small synthetic protocols, one table
	$(BIN)/iufbench sweep synthetic-smoke

test: .venv/installed-for-tests  ## the whole test suite
	$(BIN)/pytest -n auto

test-fast: .venv/installed-for-tests  ## without the tests that train for minutes
	$(BIN)/pytest -n auto -m "not slow"

test-gpu: .venv/installed-for-tests  ## the tests that need a GPU
	$(BIN)/pytest -m gpu

fuzz: .venv/installed-for-tests  ## mutated run directories, read for a minute
	IUFBENCH_FUZZ_SECONDS=60 $(BIN)/pytest tests/test_foreign_runs.py -k mutated

lint: .venv/installed-for-tests  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-for-tests  ## mypy on the harness
	$(BIN)/mypy

check: lint types test  ## lint, types and tests

docs: .venv/installed-for-tests  ## the documentation site, into build/site
	$(BIN)/mkdocs build --quiet --strict

dist: .venv/installed-for-tests  ## wheel and source distribution, built and checked, into dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

bench: .venv/installed  ## speed of each stage of a run on this machine
	$(BIN)/iufbench bench

bench-gpu: .venv/installed  ## on a machine with a GPU: agreement with the CPU, speed, limits, projections
	$(BIN)/python tests/perf/bench_gpu.py

tables: .venv/installed  ## tables of all finished runs
	$(BIN)/iufbench tables --format md --format tex --format csv --format html

figures: .venv/installed  ## figures of all finished runs
	$(BIN)/iufbench figures

verdicts: .venv/installed  ## docs/verdicts.md: what the published curves imply about learning
	$(BIN)/python -m iufbench.reporting.verdicts > docs/verdicts.md

report: .venv/installed  ## one HTML file with all results
	$(BIN)/iufbench report

clean:  ## remove the environment and caches, keep results
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
