# `make demo` and `make test` set up everything they need in .venv and may be repeated at will.
# Choose another interpreter with `make PYTHON=/path/to/python3.12 demo`.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.daptune-installed
DEV_STAMP := $(VENV)/.daptune-installed-dev
SPEC := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint suite installed oracles attack mutants bench wheel lowest docs clean

help:  ## what can be made
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

demo: $(STAMP)  ## set up and run the main job on the embedded backbone and pictures
	$(BIN)/daptune demo

test: $(DEV_STAMP)  ## set up and run ruff, mypy and pytest
	@$(MAKE) --no-print-directory -j 2 lint suite

lint: $(DEV_STAMP)  ## ruff and mypy only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# a process a core and one more, for some tests wait; each with one thread
suite: $(DEV_STAMP)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $$(($$(nproc 2>/dev/null || echo 2) + 1)) --dist worksteal

installed: $(DEV_STAMP)

attack: $(DEV_STAMP)  ## the attacks of tests/attack, each with all that it can try, and a table of what was tried
	DAPTUNE_ATTACK=1 $(BIN)/python -m pytest -q tests/attack

mutants: $(DEV_STAMP)  ## small changes of nine central files that no test notices (an hour or more; goes on where it was stopped)
	$(BIN)/python tools/mutants.py

bench: $(DEV_STAMP)  ## the speed tables, beside the straightforward algorithm and other programs (hours; without bfloat16, float32 alone)
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.pictures
	$(BIN)/python -m benchmarks.waiting --place build/waiting
	$(BIN)/python -m benchmarks.over_http --place build/waiting

# torch comes with the constraints; what is compared with is put beside it: torchvision's wheel fits another build of torch
oracles: | $(BIN)/python  ## compare with open_clip, transformers and torchvision, in an environment of their own
	$(BIN)/python -m venv build/oracles
	build/oracles/bin/python -m pip install -q -c constraints.txt -e '.[dev]'
	build/oracles/bin/python -m pip install -q transformers==5.23.0 regex
	build/oracles/bin/python -m pip install -q --no-deps open_clip_torch==3.3.0 timm==1.0.31 torchvision==0.28.0
	build/oracles/bin/python -m pytest -q -s tests/oracles

wheel: | $(BIN)/python  ## build the wheel, install it in an empty environment and run the demo from there
	rm -rf dist build/wheel
	$(PIP) wheel -q --no-deps -w dist .
	$(BIN)/python -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt dist/*.whl
	cd build/wheel && env -u PYTHONPATH venv/bin/daptune demo --out demo

lowest: | $(BIN)/python  ## install the lowest versions that pyproject.toml allows, each extra by itself, and use each (several GB)
	$(BIN)/python tools/lowest.py

# sources are read and the help is asked for, neither of which needs torch
docs: build/docs/.installed  ## build the documentation site in build/site, in an environment of its own; warnings are errors
	PYTHONPATH=src:. NO_MKDOCS_2_WARNING=1 build/docs/bin/python -m mkdocs build
	@echo "build/site/index.html; to look at it: $(BIN)/python -m http.server -b 127.0.0.1 -d build/site"

build/docs/.installed: $(SPEC) | $(BIN)/python
	$(BIN)/python -m venv --clear build/docs
	build/docs/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > build/docs/requirements.txt
	build/docs/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -r build/docs/requirements.txt cyclopts rich
	@touch $@

clean:  ## forget the environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

# The search runs each candidate: a version manager's shim may exist for an interpreter that is not installed.
# 3.11 comes first because that is where the pinned versions are tested.
$(BIN)/python:
	@for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "Setting up $(VENV) with $$candidate"; \
	    "$$candidate" -m venv --clear $(VENV) && exit 0; \
	  fi; \
	done; \
	echo "daptune needs Python 3.11 or newer with the venv module; none was found on PATH." >&2; \
	echo "Install one (for example the packages python3.11 and python3.11-venv), or name it: make PYTHON=/path/to/python3.11 demo" >&2; \
	exit 1

$(STAMP): $(SPEC) | $(BIN)/python
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(DEV_STAMP): $(SPEC) | $(BIN)/python
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@ $(STAMP)
