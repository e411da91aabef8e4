# make repro | test | lint | ui | docs | lock | clean      (each sets up .venv first where that is needed)
# make test ARGS='-k sweep': those tests alone; one process, with a debugger: .venv/bin/python -m pytest -k sweep --pdb
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup repro test lint ui docs lock clean
.DEFAULT_GOAL := repro

setup: $(STAMP)

# An environment holds absolute paths: that of a repository that was moved or copied is made anew.
SET_UP_IN := $(shell cat $(STAMP) 2>/dev/null)
ifneq ($(SET_UP_IN),$(CURDIR))
ifneq ($(SET_UP_IN),)
.PHONY: $(STAMP)
endif
endif

# Packages are compiled here, on all cores, or by the commands that come first, or, where Python may not keep that, by all.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: set PYTHON=<path to Python 3.11, 3.12 or 3.13>" >&2; exit 2; }
	@test -z "$(SET_UP_IN)" -o "$(SET_UP_IN)" = "$(CURDIR)" || { echo "$(VENV) was set up in $(SET_UP_IN): made anew"; rm -rf $(VENV); }
	@for python in $(PYTHON) $(wildcard $(BIN)/python); do test ! -x "$$(command -v $$python)" || $$python -c '$(SUPPORTED)' || { \
	echo "$$python is $$($$python --version): set PYTHON=<path to Python 3.11, 3.12 or 3.13>, and remove $(VENV) if it is of another" >&2; exit 2; }; done
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@left=$$($(BIN)/uv pip freeze --quiet --python $(BIN)/python | sed 's/[= ].*//' | grep -E '^(nvidia|cuda)-' | grep -vxF "$$(sed 's/==.*//' requirements.lock)"); \
	test -z "$$left" || $(BIN)/uv pip uninstall --quiet --python $(BIN)/python $$left # of another CUDA, whose files lie where this one's go
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@echo "$(CURDIR)" > $@

TABLE := results/comparison/table.txt
repro: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH"; before=$$(stat -c %y $(TABLE) 2>/dev/null); dvc repro || exit; \
	test "$$before" != "$$(stat -c %y $(TABLE))" || cat $(TABLE) # what `compare` printed when it last ran

# A process per core, four at most, as each loads a framework; what takes longest comes first (tests/durations.json).
test: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder --durations 10 $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

PORT ?= 5000
ui: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m pipeline.ui --port $(PORT)

docs: # the pictures of the architecture, from their sources (Graphviz)
	docs/architecture/render.sh

lock: $(BIN)/uv
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --extra dev --no-header --no-annotate --no-emit-index-url pyproject.toml --output-file requirements.lock

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

clean:
	rm -rf data/raw data/prepared data/cache data/*.building data/scratch-* results outputs multirun dvc_plots .pytest_cache .mypy_cache .ruff_cache
