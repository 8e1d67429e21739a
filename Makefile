# make setup    the environment in .venv (Python 3.11, every package at its pinned version)
# make demo     the whole loop on toy videos:  [OUT=folder] [FAST=1] [SEED=0]
# make test     every test, those that start Ray, vLLM and DeepSpeed too
# make check    lint, format, types, import rules
# make docs     generated files are up to date, and links and commands in the docs exist
# make clean    caches and build outputs; not .venv, not runs/

PYTHON ?= python3.11
REQUIREMENTS ?= requirements/cpu.txt
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input

.PHONY: setup demo test check docs clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

# Without --no-deps a resolver would add packages that cannot load beside a CPU torch: see tools/make_requirements.py.
# hatchling is among the pins, so the project itself needs no build environment of its own.
$(STAMP): $(REQUIREMENTS) pyproject.toml tools/torchvision_cpu.py
	@test -x $(BIN)/python || { echo "setup: making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "setup: installing the packages of $(REQUIREMENTS) (a few minutes the first time)"
	@$(PIP) install --no-deps --requirement $(REQUIREMENTS)
	@echo "setup: installing owlcap itself, editable"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@echo "setup: letting torchvision load beside a CPU torch (tools/torchvision_cpu.py)"
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
		cp tools/torchvision_cpu.py "$$site/_torchvision_cpu.py" && \
		echo 'import _torchvision_cpu' > "$$site/_torchvision_cpu.pth"
	@touch $(STAMP)
	@echo "setup: done; '$(BIN)/owlcap doctor' checks it"

demo: setup
	$(BIN)/owlcap demo $(if $(OUT),--out "$(OUT)") $(if $(filter-out 0,$(FAST)),--fast) $(if $(SEED),--seed $(SEED))

# Tests that look at pages need a Chromium; where none is there and none can be fetched, they say so and are skipped.
test: setup
	@$(BIN)/python tools/fetch_chromium.py || true
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

docs: setup
	$(BIN)/python tools/make_reference.py --check
	$(BIN)/python tools/make_dashboard.py --check
	$(BIN)/python tools/check_docs.py

clean:
	rm -rf build dist site .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
