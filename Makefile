# One runner, the same steps on a laptop and in CI. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEPENDENCIES := $(VENV)/.dependencies
STAMP := $(VENV)/.ready
SOURCES := emboflow_dagster assets_defs resources tests benchmarks
FLOWCEPT := .flowcept-venv/.ready
LEROBOT := .lerobot-venv/.ready
RLDS := .rlds-venv/.ready
RERUN := .rerun-venv/.ready
PYTEST := $(BIN)/python -m pytest
# Of each of the two parts of `make test`: their processes wait for each other more than they compute.
JOBS ?= 3

# Dagster starts many short processes: without byte code each of them compiles a thousand modules anew.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help setup demo dev test test-inside test-outside test-fast test-s3 test-flowcept test-celery test-graphs test-sample-graphs verify-lerobot verify-rlds verify-rerun compare-samples mutants compare-quality faults faults-blobs faults-runs check fmt lint types imports docs bench bench-blobs bench-recordings bench-promises lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv with everything pinned in requirements.lock; nothing to do when it is fresh
	@echo "ready: $(BIN)/emboflow --help"

$(DEPENDENCIES): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null || { \
	  echo "make setup: Python 3.11 or 3.12 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1);" \
	    "with another one: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make setup: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }
	@echo "[1/4] virtual environment in $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "[2/4] the packages of requirements.lock, hashes checked (minutes the first time)"
	@$(BIN)/python -m pip install -qq --no-compile --no-deps --require-hashes -r requirements.lock
	@echo "[3/4] byte code"
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true  # some packages carry templates that are no Python
	@touch $@

$(STAMP): $(DEPENDENCIES) pyproject.toml
	@echo "[4/4] emboflow-dagster itself, editable"
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check | sed "/^No broken/d"
	@touch $@

demo: $(STAMP)  ## Registered, probed, run and versioned: the whole way of the data on generated recordings
	@$(BIN)/emboflow demo

dev: $(STAMP)  ## Database, Dagster webserver and daemon in one; ctrl-c stops them all
	@$(BIN)/emboflow dev

# Side by side, since each leaves processors idle; what a part printed is shown whole when it has ended.
test: $(STAMP)  ## All tests: unit, integration (a real mongod), acceptance
	@echo "unit and integration tests beside acceptance tests: each part tells its results when it has ended (minutes)"
	@$(MAKE) -j 2 --output-sync=target test-outside test-inside

# The long ones first: the unit tests fill what is left at the end.
test-inside: $(STAMP)  ## Of them the unit and integration tests
	@$(PYTEST) -q -n $(JOBS) tests/integration tests/unit

test-outside: $(STAMP)  ## Of them the acceptance tests: a whole deployment from outside
	@$(PYTEST) -q -n $(JOBS) --dist loadfile --no-loadscope-reorder tests/acceptance

test-fast: $(STAMP)  ## Unit tests only: no process is started but Python
	@$(PYTEST) -q -n $(JOBS) tests/unit

#: The IO manager, a team's S3Resource and what steps print, besides the store, prefixes and deliveries.
S3_TESTS := tests/integration/s3 tests/acceptance/test_dagster_s3.py \
  tests/acceptance/test_dagster_homes.py::test_assets_in_a_bucket_are_verified_collected_scrubbed_and_healed \
  tests/acceptance/test_step_logs.py::test_what_a_step_prints_goes_to_the_bucket_and_is_shown_from_there \
  tests/acceptance/test_step_logs.py::test_a_bucket_that_is_away_costs_no_step

test-s3: $(STAMP)  ## The S3 tests against a server of yours: EMBOFLOW_TEST_S3=https://host (docs/object-store.md)
	@$(PYTEST) -q $(if $(EMBOFLOW_TEST_S3_BUCKET),,-n $(JOBS)) $(S3_TESTS)

test-flowcept: $(STAMP) $(FLOWCEPT)  ## Flowcept 1.0.3 writes a database; it comes over, goes back and is read by Flowcept
	@$(PYTEST) -q tests/integration/project/test_flowcept_real.py

$(FLOWCEPT):
	@echo "Flowcept 1.0.3 in .flowcept-venv, an environment of its own"
	@$(PYTHON) -m venv .flowcept-venv
	@.flowcept-venv/bin/python -m pip install -qq 'flowcept[mongo]==1.0.3' 'pandas>=2.2,<4'
	@touch $@

verify-lerobot: $(STAMP) $(LEROBOT)  ## Packages of real recordings in real LeRobot 0.4.4: pictures compared, 3 training steps; 2 GB once
	@LEROBOT_VENV=$(abspath .lerobot-venv) $(PYTEST) -q -s -o faulthandler_timeout=0 tests/lerobot

# torch comes from wherever pip finds it; where that is a build for a GPU: make verify-lerobot TORCH="--index-url <of CPU wheels>"
TORCH ?=
$(LEROBOT): tests/lerobot/requirements.txt
	@echo "LeRobot 0.4.4 with torch 2.13.0 in .lerobot-venv, an environment of its own (2 GB, minutes)"
	@$(PYTHON) -m venv .lerobot-venv
	@.lerobot-venv/bin/python -m pip install -qq $(TORCH) torch==2.13.0
	@.lerobot-venv/bin/python -m pip install -qq --no-deps torchvision==0.25.0 torchcodec==0.13.0 lerobot==0.4.4
	@.lerobot-venv/bin/python -m pip install -qq -r tests/lerobot/requirements.txt 2> >(grep -v "requires\|resolver" >&2)
	@touch $@

verify-rlds: $(STAMP) $(RLDS)  ## RLDS packages of real recordings in real TensorFlow Datasets: every step compared; 2 GB once
	@RLDS_VENV=$(abspath .rlds-venv) $(PYTEST) -q -s -o faulthandler_timeout=0 tests/rlds

# rlds is installed without its own list, which names the GPU build of TensorFlow and a replay server.
$(RLDS): tests/rlds/requirements.txt
	@echo "TensorFlow Datasets 4.9.10 with TensorFlow 2.21.0 in .rlds-venv, an environment of its own"
	@$(PYTHON) -m venv .rlds-venv
	@.rlds-venv/bin/python -m pip install -qq -r tests/rlds/requirements.txt
	@.rlds-venv/bin/python -m pip install -qq --no-deps rlds==0.1.8
	@touch $@

verify-rerun: $(STAMP) $(RERUN)  ## Packages of real recordings for Rerun, read again by rerun-sdk 0.26 and held against the versions; 290 MB once
	@.rerun-venv/bin/python -m pytest -q -s -o faulthandler_timeout=0 tests/rerun

# Our own libraries are those of .venv; rerun-sdk alone is added to them.
$(RERUN): tests/rerun/requirements.txt
	@echo "rerun-sdk in .rerun-venv, an environment of its own"
	@$(PYTHON) -m venv .rerun-venv
	@.rerun-venv/bin/python -m pip install -qq --no-deps -r tests/rerun/requirements.txt
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
	  > "$$(.rerun-venv/bin/python -c 'import site; print(site.getsitepackages()[0])')/emboflow.pth"
	@touch $@

faults: $(STAMP)  ## Killed at every command, failed at every command, eight at once: the long version, about half an hour
	@EMBOFLOW_FAULTS=all $(PYTEST) -q -n $(JOBS) tests/integration/faults tests/integration/s3

BLOB_WRITES := register or put or cud or transfer or release or claim or want_a_blob or upload or announce or abandon or temporary or gc or gridfs or metadata or flowcept

faults-blobs: $(STAMP)  ## The same for the blob store alone, over 2,000 kills, S3 and races with gc included
	@EMBOFLOW_FAULTS=all $(PYTEST) -q -n $(JOBS) tests/integration/faults -k "$(BLOB_WRITES)"
	@EMBOFLOW_FAULTS=all $(PYTEST) -q -n $(JOBS) tests/integration/s3 tests/integration/project/test_gc_races.py

test-celery: $(STAMP)  ## Two Celery workers under a real daemon, killed in every way; needs redis-server, about ten minutes
	@EMBOFLOW_FAULTS=all $(PYTEST) -q tests/acceptance/test_celery.py tests/acceptance/test_celery_cluster.py

faults-runs: $(STAMP)  ## Daemons, run workers, steps, code servers and a machine killed, a daemon kept away, 40 minutes
	@EMBOFLOW_FAULTS=all $(PYTEST) -q tests/acceptance/test_faults_runs.py tests/acceptance/test_faults_machine.py \
	  tests/acceptance/test_faults_daemon.py tests/acceptance/test_workspace_limits.py

test-graphs: $(STAMP)  ## 500 nodes, 300 side by side, 1,000 steps in one Dagster run, half an hour
	@EMBOFLOW_FAULTS=all $(PYTEST) -q tests/acceptance/test_graphs.py

test-sample-graphs: $(STAMP)  ## The six graphs of the samples under a real emboflow dev, every node type from a file, ten minutes
	@EMBOFLOW_FAULTS=all $(PYTEST) -q -s -o faulthandler_timeout=0 tests/acceptance/test_sample_graphs.py tests/integration/project/test_every_node.py

compare-samples: $(STAMP)  ## Probes beside the truth of the samples, field by field, into docs/samples.md; differences fail
	@$(BIN)/python -m tests.samples_compared

mutants: $(STAMP)  ## 400 damaged files of each format probed in child processes; a table of what became of them
	@$(BIN)/python -m tests.mutants

check: $(STAMP)  ## Everything CI runs
	@$(MAKE) -j 3 --output-sync=target lint types imports
	@echo "all tests and the docs side by side: each part tells its results when it has ended (minutes)"
	@$(MAKE) -j 3 --output-sync=target test-outside test-inside docs

fmt: $(STAMP)  ## Format and fix what can be fixed without thinking
	@$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

lint: $(STAMP)  ## ruff (rules and format) and spelling
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@git ls-files -z | xargs -0 $(BIN)/codespell

types: $(STAMP)  ## basedpyright over the library and the deployment
	@$(BIN)/basedpyright

imports: $(STAMP)  ## The layers and who may import what (import-linter)
	@$(BIN)/lint-imports --no-logo

docs: $(STAMP)  ## README and docs, executed
	@$(PYTEST) -q tests/docs

bench: $(STAMP)  ## Benchmarks, printed as ratios where a peer exists
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

bench-blobs: $(STAMP)  ## The blob store beside nine others into benchmarks/RESULTS.md, 25 minutes; OPTIONS=--quick: 5
	@$(BIN)/python benchmarks/blobs $(OPTIONS)

bench-recordings: $(STAMP)  ## Probe, normalise, quality and previews beside reading once; OPTIONS="--size 250MiB,5GiB": memory, minutes
	@$(BIN)/python benchmarks/normalise.py $(OPTIONS)
	@[ -n "$(OPTIONS)" ] || { $(BIN)/python benchmarks/probe.py && $(BIN)/python benchmarks/pictures.py; }

bench-promises: $(STAMP)  ## Four writers at once, and writers killed, ours and nine others, into benchmarks/PROMISES.md, 15 minutes
	@$(BIN)/python benchmarks/promises $(OPTIONS)

PEERS := lerobot-doctor==0.2.0 robovet[video]==0.2.2 robot-data-audit[parquet,video]==0.11.0
TREES ?= $(wildcard $(or $(EMBOFLOW_SAMPLES),../shared/samples)/standard_dataset/*)
compare-quality: $(STAMP)  ## Our quality checks beside three others over LeRobot trees into docs/quality-peers.md (TREES=folders)
	@for peer in $(PEERS); do \
	  folder=.peer-venvs/$${peer%%[*=\[]*}; \
	  [ -f $$folder/.ready ] || { echo "$$peer in $$folder, an environment of its own (minutes)"; \
	    $(PYTHON) -m venv $$folder; $$folder/bin/pip install -qq "$$peer"; touch $$folder/.ready; }; \
	done
	@$(BIN)/python benchmarks/quality/compare.py $(TREES) $(if $(filter file,$(origin TREES)),--page docs/quality-peers.md)

lock:  ## Resolve pyproject.toml anew into requirements.lock (needs uv on the PATH)
	@uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --quiet \
	  --no-config --no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-package rerun-sdk --output-file requirements.lock

clean:  ## Remove what the tools left; .venv and .emboflow stay
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
