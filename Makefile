.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
EXTRA ?= cpu
# Environments of their own: the two builds of xgboost share their files.
VENV := $(if $(filter gpu,$(EXTRA)),.venv-gpu,.venv)
TORCH := $(if $(filter gpu,$(EXTRA)),auto,cpu)
# Not the absolute path: a checkout may lie in a folder with spaces.
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup run test lock check bench

help: ## Say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Make the virtual environment when it is missing (EXTRA=gpu: CUDA, in .venv-gpu)

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; later runs start at once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "FinSight needs Python 3.11; $(VENV) has another. Remove it and set PYTHON=/path/to/python3.11"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	@# torch first and by itself: afterwards nothing pulls another build of it in. Its builds for one kind of
	@# hardware have an index of their own; behind a mirror that lacks it, the mirror's build is taken.
	@UV_HTTP_RETRIES=0 $(BIN)/python -m uv pip install --quiet --python $(BIN)/python \
		--torch-backend=$(TORCH) torch==2.13.0 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[$(EXTRA),dev]"
	@touch $(STAMP)

run: $(STAMP) ## Set up, then bring everything up on this machine
	$(BIN)/finsight up

# First what runs side by side, then what starts a Ray, one test at a time; CONTRIBUTING.md says how to run less.
# Both run whatever the first finds, but after 2: Ctrl-C, -x, or tests that cannot be read. 5: nothing selected.
test: $(STAMP) ## Run every test, or some: make test PYTEST="tests/unit -q"
	@$(BIN)/python -m pytest --part=parallel -n2 --dist=worksteal $(PYTEST); parallel=$$?; \
	if [ $$parallel = 2 ]; then exit 2; fi; \
	$(BIN)/python -m pytest --part=serial $(PYTEST) -n0; serial=$$?; \
	case $$parallel,$$serial in 0,0 | 0,5 | 5,0) ;; *) \
		echo "Exit status of the tests side by side: $$parallel; of those after them: $$serial"; exit 1 ;; \
	esac

lock: $(STAMP) ## Write down the installed versions, after pyproject.toml has changed
	@# what the choice of CPU or GPU decides, and the installers themselves, stay free
	@$(BIN)/python -m uv pip freeze --quiet --exclude-editable --python $(BIN)/python \
		| grep -vE '^(torch|xgboost|xgboost-cpu|nvidia-.*|triton|pip|setuptools|uv)==' > constraints.txt

check: $(STAMP) ## Lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What benchmark `queue` measures against.
PEERS := $(VENV)/.peers-installed

$(PEERS): $(STAMP)
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[$(EXTRA),dev,bench]"
	@touch $(PEERS)

bench: $(STAMP) $(if $(filter-out queue,$(BENCH)),,$(PEERS)) ## Run every benchmark, or one: make bench BENCH=features
	@for name in $(or $(BENCH),features queue drain drain_limited bars_write bars_write_executemany bars_rewrite bars_read up idle_memory collect_live gap_scan gap_scan_incremental); do \
		$(BIN)/python -m benchmarks.$$name || exit 1; done
