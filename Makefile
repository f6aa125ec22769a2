# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
# Needs Python 3.10+ and a C compiler; pictures other than .dot need Graphviz.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Tests of one file share compiled modules, so one process runs them.
TEST_FLAGS ?= -n 2 --dist loadfile

.PHONY: demo test lint format bench clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(TEST_FLAGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/cpu.py --quick

clean:
	rm -rf $(VENV) build dist *.egg-info

# An environment a developer has activated is never touched: everything happens in $(VENV).
$(VENV)/.demo: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "graphc needs Python 3.10 or newer, this is %d.%d" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "graphc needs Python 3.10 or newer, this is %d.%d" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@ $(VENV)/.demo
