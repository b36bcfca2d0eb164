PYTHON ?= python3
BIN := .venv/bin
# A worker more than cores, since tests of real processes wait; each has one thread and two gigabytes. One that hangs
# ends with its test, at the limit in pyproject.toml.
WORKERS := $$($(BIN)/python -c "import os; print(min(4, os.cpu_count() + 1))")
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -r

.PHONY: quickstart demo test slow forkserver tested benchmark docs clean

.venv/installed: requirements.txt
	@$(PYTHON) -c "import src"  # which refuses an older Python, before gigabytes are downloaded
	$(PYTHON) -m venv .venv
	$(INSTALL) $<
	touch $@

# An extra, requirements/NAME.txt; that of the tests names the others.
.venv/%: requirements/%.txt .venv/installed
	$(INSTALL) $<
	touch $@
.venv/test: $(wildcard requirements/*.txt)

quickstart: .venv/installed
	$(BIN)/python quickstart.py

# The page of answers is the last thing that a quickstart writes.
toy/search.html:
	$(MAKE) quickstart

NEWEST = $$(ls -t toy/models/$(1)/saved_models/$(2).pt | head -n 1)

demo: .venv/demo | toy/search.html
	$(BIN)/python demo.py --pictures toy/my_pictures --output-path toy --clip-model-name toy/small_clip.pt \
	    --clip-model-path "$(call NEWEST,clip_finetuned_on_cirr_*,tuned_clip_arithmetic)" \
	    --combiner-path "$(call NEWEST,combiner_trained_on_cirr_*,combiner_arithmetic)"

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(PYTEST) -m "not slow"

slow: .venv/test
	$(PYTEST) -m slow

# As from Python 3.14 on, where a fork server starts the workers.
forkserver: .venv/test
	$(PYTEST) -m "workers and not slow" --start-method forkserver

# The versions in .venv that just passed. They hold for its Python, and as constraints (pip install -c) on any system.
tested: test
	echo "# What make test last passed with, on $$($(BIN)/python --version)." > requirements/tested.txt
	$(BIN)/python -m pip freeze >> requirements/tested.txt

benchmark: .venv/installed
	$(BIN)/python -m benchmarks

docs: .venv/installed
	$(BIN)/python -m docs.options
	$(BIN)/python -m docs.findings

clean:
	rm -rf .venv toy toy-* .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
