PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/quickstart
export TF_CPP_MIN_LOG_LEVEL ?= 3
# A step's arrays come and go: fewer page faults in large pages (glibc 2.35 and newer).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: quickstart test test-all check format clean

quickstart: .venv/installed
	$(BIN)/electra-jax quickstart --workdir $(WORKDIR)

test: .venv/installed
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not full"

test-all: .venv/full .venv/beam/installed
	$(BIN)/python -m pytest -q
	.venv/beam/bin/python -m pytest -q tests/data/test_beam.py

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not full"

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Exact versions where they were tested, ranges on other Pythons.
.venv/installed: setup.py requirements.txt
	$(PYTHON) -m venv .venv
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		$(BIN)/python -m pip install -q -r requirements.txt; fi
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $@

# PyTorch and transformers, to compare with.
.venv/full: .venv/installed
	$(BIN)/python -m pip install -q -e '.[full]'
	touch $@

# Apache Beam needs older versions of some packages than requirements.txt names.
.venv/beam/installed: .venv/installed
	$(PYTHON) -m venv .venv/beam
	.venv/beam/bin/python -m pip install -q -e '.[beam,test]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
