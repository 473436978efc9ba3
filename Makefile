PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-gpu check snapshots screenshots faults fuzz bench-gpu reproduce-imagenette clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: setup  ## distil the built-in handwritten digits, in the foreground
	$(BIN)/wmdd-tui run --preset digits

check: setup  ## format, lint, types
	$(BIN)/ruff format --check engine wmdd_tui tests docs benchmarks
	$(BIN)/ruff check engine wmdd_tui tests docs benchmarks
	$(BIN)/mypy
	$(BIN)/mypy docs/screenshots.py

test: check  ## the whole test suite, a process for each core
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-gpu: setup  ## the device code on a GPU, compiled steps too; make test has it on a simulated one
	$(BIN)/python -m pytest --gpu tests/gpu

snapshots: setup  ## store what the screens show now; look at the change before keeping it
	$(BIN)/python -m pytest tests/app/test_snapshots.py --update-snapshots

screenshots: setup  ## docs/screens from true runs of the digits demo, some two minutes on two cores
	$(BIN)/python docs/screenshots.py

faults: setup  ## kill, starve and break true engines, some ten minutes on two cores; the last line is JSON
	$(BIN)/python tests/process/storm.py --kills 50

fuzz: setup  ## hostile files at every entry point, over 10,000 of them; the last line is JSON
	$(BIN)/python tests/fuzz/fuzz.py

bench-gpu: setup  ## every row that needs a GPU, under eight minutes; result files in benchmarks/results
	$(BIN)/python -m benchmarks gpu --out benchmarks/results

reproduce-imagenette: setup  ## make reproduce-imagenette DATA=DIR OUT=DIR: all of docs/results.md; the same command goes on
	$(BIN)/python benchmarks/reproduce.py --data "$(DATA)" --out "$(OUT)" $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
