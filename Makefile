# One command for each thing that is done to this project. `make` alone lists them.
#
# VENV    the environment to make and use (.venv)
# PYTHON  the Python to make it with (default: the first that is 3.11 or newer)
# MINUTES how long `make model` goes on (20), or `make fuzz`
# SECONDS how long `make fuzz` goes on (60), if no MINUTES are given
# SEED    what `make fuzz` begins with (drawn, and printed)
# ARGS    more arguments for pytest: make test ARGS="-k framing -x"

VENV ?= .venv
PYTHON ?=
MINUTES ?= 20
SECONDS ?= 60
ARGS ?=

RUN := $(VENV)/bin/python -m
READY := $(VENV)/.ready
PROOFS := $(sort $(wildcard scripts/proofs/*.py))
CORE_TESTS := $(addprefix tests/,unit vectors property pair ndk)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help setup demo test rules mutants model lint types cov fuzz interop proofs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the package (editable) and all development tools

$(READY): pyproject.toml
	PYTHON="$(PYTHON)" scripts/make-venv "$(VENV)"
	$(RUN) pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY) ## run the demonstration: two adapters in this machine, one Send-and-Invalidate
	$(VENV)/bin/softndk demo

test: $(READY) ## run the tests, except those marked slow or interop
	$(RUN) pytest -m "not slow and not interop" $(ARGS)

rules: $(READY) ## print every rule of NDKPI with the tests that prove it; write docs/reference/rules.md
	$(RUN) scripts.rules

mutants: $(READY) ## break the code at places that rules forbid, and show that the tests of these rules notice
	$(RUN) scripts.rules_mutants

lint: $(READY) ## check style and formatting
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(READY) ## check types (mypy strict, src and tests)
	$(RUN) mypy

cov: $(READY) ## measure which branches of the protocol core its own tests run; fails under 95 %
	$(RUN) pytest -q -m "not slow and not judge" --cov --cov-report=json:coverage.json --cov-report=term $(ARGS) $(CORE_TESTS)
	$(VENV)/bin/python scripts/coverage_gate.py coverage.json --minimum 95

model: $(READY) ## compare two ends with the model of NDKPI's rules, in memory and over real sockets, for MINUTES=20
	$(RUN) pytest $(ARGS) tests/model
	$(RUN) tests.model.machine --minutes $(MINUTES)

fuzz: $(READY) ## throw octets at the protocol core and at an adapter, guided by coverage, for SECONDS=60 or MINUTES; see docs/howto/fuzz.md
	$(RUN) pip install --quiet --editable '.[fuzz]'
	$(RUN) fuzz run $(if $(filter file,$(origin MINUTES)),--seconds $(SECONDS),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

interop: $(READY) ## run programs of a Linux guest with soft-iWARP under QEMU against softndk; builds the guest once
	$(RUN) scripts.interop build
	$(RUN) pytest -m interop --timeout 600 $(ARGS) tests/interop

proofs: $(READY) ## run the slow tests, then every script in scripts/proofs/
	$(RUN) pytest -m "slow and not interop" $(ARGS) || test $$? -eq 5  # 5: no test is marked slow
	@set -e; for proof in $(PROOFS); do echo "== $$proof"; $(VENV)/bin/python "$$proof"; done

clean: ## remove everything that these targets made
	rm -rf $(VENV) build dist .coverage .coverage.* coverage.json htmlcov
	rm -rf .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
