PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test check clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: setup  ## distil the built-in handwritten digits, in the foreground
	$(BIN)/wmdd-tui run --preset digits

check: setup  ## format, lint, types
	$(BIN)/ruff format --check engine wmdd_tui tests
	$(BIN)/ruff check engine wmdd_tui tests
	$(BIN)/mypy

test: check  ## the whole test suite
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
