# patchmi: demo, test, check, fix, docs, bench. Everything happens in .venv; PYTHON=python3.12 picks another Python.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check install -c constraints.txt

.PHONY: demo test check lint fix docs bench

demo: .venv/demo.stamp  ## audit a classifier of handwritten digits and say where the report is
	$(BIN)/patchmi demo --out runs/demo --resume

test: .venv/dev.stamp  ## all tests, with every tensor's shape checked
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

check: lint test docs  ## what a change must pass

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

fix: .venv/dev.stamp  ## put format, order of imports and the like right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/dev.stamp  ## the documentation, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/dev.stamp  ## the numbers; ARGS='quality --data ../shared/data' runs one of them
	$(BIN)/python -m benchmarks $(ARGS)

.venv/bin/pip:
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing patchmi and what it stands on into .venv: about 2 minutes, some 250 MB to fetch"
	@$(PIP) -e '.[demo]'
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing patchmi and its developers' tools into .venv: about 3 minutes, some 350 MB to fetch"
	@$(PIP) -e '.[demo,dev]'
	@touch $@ .venv/demo.stamp
