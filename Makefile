# PYTHON=… chooses an interpreter, which gets an environment of its own; by default the newest
# supported one is found by trying what there is.
PYTHON ?=
VENV ?= .venv$(if $(PYTHON),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
export TF_CPP_MIN_LOG_LEVEL ?= 3
# As the command itself has it (electra_jax/system/huge_pages.py).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

PYTEST = $(BIN)/python -m pytest -q
# Files go to whichever process is free; the longest come first (tests/conftest.py).
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

# $(call make_environment,FOLDER,PYTHON,EXTRAS): in the tested versions.
define make_environment
	python=$$(launch/find_python.sh $(2)) && echo "$(1) is made with $$python" && \
		"$$python" -m venv --clear $(1)
	version=$$($(1)/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		pins=requirements-$$version.txt; [ -e $$pins ] || pins=requirements.txt; \
		$(1)/bin/python -m pip install -q -c $$pins -e '.[$(3)]'
endef

.PHONY: quickstart test test-oldest test-all check quick faults docs format lock clean

quickstart: $(VENV)/installed
	$(BIN)/electra-jax quickstart --workdir $(WORKDIR)

test: $(VENV)/installed
	$(PYTEST) $(PARALLEL) -m "not full"

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) $(PARALLEL) -m "not slow and not full"

quick: $(VENV)/installed
	$(PYTEST) $(PARALLEL) -m "not slow and not full"

# FAULTS="--kills 20 --seed 1": how many, and which (tests/faults/run.py).
faults: $(VENV)/installed
	$(BIN)/python tests/faults/run.py $(FAULTS)

# The site of docs/, in build/site.
docs: $(VENV)/docs
	$(BIN)/python -m mkdocs build --strict

# The other end of the ranges in pyproject.toml.
test-oldest:
	python=$$(launch/find_python.sh --version 3.11) && \
		$(MAKE) quick PYTHON="$$python" VENV=.venv-3.11

test-all: $(VENV)/full $(VENV)/beam/installed
	$(PYTEST) --cov=electra_jax --cov-report=term:skip-covered
	$(VENV)/beam/bin/python -m pytest -q tests/data/test_beam.py

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes the tested versions anew: the newest that pyproject.toml allows, and the oldest.
LOCK := uv pip compile -q --upgrade --no-annotate --no-header --extra test pyproject.toml
lock: $(VENV)/installed
	$(BIN)/python -m pip install -q uv
	$(BIN)/$(LOCK) --python-version 3.12 -o requirements.txt
	$(BIN)/$(LOCK) --python-version 3.11 --resolution lowest-direct -o requirements-3.11.txt

$(VENV)/installed: pyproject.toml setup.py requirements.txt requirements-3.11.txt
	$(call make_environment,$(VENV),$(PYTHON),test)
	touch $@

# PyTorch and transformers, to compare with.
$(VENV)/full: $(VENV)/installed
	$(BIN)/python -m pip install -q -e '.[full,docs]'
	touch $@

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install -q -e '.[docs]'
	touch $@

# Apache Beam needs older versions of some packages than requirements.txt names.
$(VENV)/beam/installed: $(VENV)/installed
	$(BIN)/python -m venv $(VENV)/beam
	$(VENV)/beam/bin/python -m pip install -q -e '.[beam,test]'
	touch $@

clean:
	rm -rf .venv .venv-* build dist *.egg-info
