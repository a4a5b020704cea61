# One command each; HACKING.md says when to use which.
SHELL := /bin/sh
VENV ?= .venv
PYTHON3 := $(VENV)/bin/python
WORKERS ?= 2
SEEDS ?= 10000
FUZZ_SECONDS ?= 60
ONLY ?=
UV ?= uv

REPORTS := .build/reports
COVERAGE := .build/coverage
PYTEST := $(PYTHON3) -m coverage run -m pytest -q
SMALL_TESTS := tests/unit tests/vectors tests/fuzz
CI_SEEDS := 200

.PHONY: help setup demo test lint format lint-code types imports tidy unit seeds integration e2e \
	coverage sim fuzz bench lock clean fresh
.NOTPARALLEL:

help:
	@sed -n 's/^## //p' Makefile

## make setup        the virtual environment, and what the system must have
setup:
	@VENV=$(VENV) .ci/setup

## make demo         two gateways and a cloud, cut off and settled, on real purchases
demo: setup
	@$(PYTHON3) -m bench.demo

## make test         every gate, in the order of CI; ends with the coverage and a total
test: setup fresh lint tidy unit seeds integration e2e coverage
	@$(PYTHON3) .ci/summary $(REPORTS)

fresh:
	@rm -rf $(REPORTS) $(COVERAGE)
	@mkdir -p $(REPORTS) $(COVERAGE)

## make lint         formatting, ruff, mypy --strict, the import contracts
lint: format lint-code types imports

format: setup
	@$(PYTHON3) -m ruff format --check .

lint-code: setup
	@$(PYTHON3) -m ruff check .

types: setup
	@$(PYTHON3) -m mypy --strict

imports: setup
	@PYTHONPATH=. $(VENV)/bin/lint-imports --no-logo

## make tidy         the house rules: ceilings, error codes, money, drivers, leftovers, the lock
tidy: setup
	@$(PYTHON3) -m pytest -q -p no:schemathesis tests/test_tidy.py tests/tidy --junitxml=$(REPORTS)/tidy.xml

## make unit         unit, vector and short fuzz tests, without a network
unit: setup
	@.ci/offline $(PYTEST) -n $(WORKERS) -p no:schemathesis $(SMALL_TESTS) --junitxml=$(REPORTS)/unit.xml

## make seeds        the simulations' share of CI; they need no coverage, which would double their time
seeds: setup
	@.ci/offline $(PYTHON3) -m pytest -q -n $(WORKERS) -p no:schemathesis tests/sim --seeds $(CI_SEEDS) \
		--junitxml=$(REPORTS)/seeds.xml

## make integration  against real servers on loopback: PostgreSQL, SoftHSM2, TLS
integration: setup
	@$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/integration --junitxml=$(REPORTS)/integration.xml

## make e2e          the programs as processes, as a branch runs them
e2e: setup
	@$(PYTEST) tests/e2e --junitxml=$(REPORTS)/e2e.xml

coverage: setup
	@$(PYTHON3) -m coverage combine -q
	@$(PYTHON3) -m coverage report --include='wallet/protocol/*' --fail-under=100
	@$(PYTHON3) -m coverage report --fail-under=97

## make sim          the simulations on many seeds: SEEDS=10000
sim: setup
	@.ci/offline $(PYTHON3) -m pytest -q -n $(WORKERS) tests/sim --seeds $(SEEDS) --timeout 0

## make fuzz         atheris on every decoder, FUZZ_SECONDS=60 each
fuzz: setup
	@for target in tests/fuzz/fuzz_*.py; do \
		name=$$(basename $$target .py); \
		mkdir -p .build/fuzz/$$name; \
		echo "== $$name"; \
		corpus=$$(test ! -d tests/fuzz/corpus/$$name || echo tests/fuzz/corpus/$$name); \
		PYTHONPATH=. .ci/offline $(PYTHON3) $$target -max_total_time=$(FUZZ_SECONDS) \
			-artifact_prefix=.build/fuzz/ .build/fuzz/$$name $$corpus || exit 1; \
	done

## make bench        each figure beside its ceiling or peer: ONLY=engine
bench: setup
	@$(PYTHON3) -m bench $(if $(ONLY),--only $(ONLY))

LOCK := pip compile -q --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade

## make lock         for maintainers: resolve pyproject.toml anew into the locks, and the peer's (needs uv)
lock:
	@$(UV) $(LOCK) --extra edge --extra cloud --extra dev pyproject.toml -o requirements.lock
	@echo 'tpm2-pytss>=3,<4' | $(UV) $(LOCK) --no-deps - -o requirements-tpm.lock
	@printf '%s\n' pkgconfig setuptools-scm vcs-versioning | \
		$(UV) $(LOCK) --no-deps - -o requirements-tpm-build.lock
	@$(UV) $(LOCK) --override bench/nutshell.in bench/nutshell.in -o bench/nutshell.lock

## make clean        remove everything that make made
clean:
	@rm -rf .build $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
