PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test slow benchmark docs clean

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

quickstart: .venv/installed
	$(BIN)/python quickstart.py

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -m "not slow"

slow: .venv/installed
	$(BIN)/python -m pytest -m slow

benchmark: .venv/installed
	$(BIN)/python -m benchmarks

docs: .venv/installed
	$(BIN)/python -m docs.options

clean:
	rm -rf .venv toy toy-* .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
