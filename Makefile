# Everything a newcomer types. `make help` lists it; each target makes `.venv` first when it must.
#
# Written for any POSIX make. To choose the interpreter of `.venv`: make setup PYTHON=/path/to/python3

.POSIX:
.PHONY: help setup demo test check check-style check-types check-layers check-docs bench campaign docs clean

VENV = .venv
RUN = $(VENV)/bin/python
PYTEST_FLAGS = -n auto --maxprocesses 8
SOURCES = src tests tools demo benchmarks examples

help: ## list these targets
	@echo "Lichen: a ledger for machine learning that pays for itself in kilowatt-hours."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv with everything a developer needs
	@PYTHON="$(PYTHON)" sh tools/prepare dev demo corpus experiments web weights stores

demo: ## the report's story, told on real clinical data (under two minutes)
	@PYTHON="$(PYTHON)" sh tools/prepare demo web
	@$(RUN) demo/story.py

test: setup ## the whole test suite
	@$(RUN) -m pytest $(PYTEST_FLAGS)

check: check-style check-types check-layers check-docs ## style, types, layers, docs

check-style: setup ## ruff: rules and layout
	@echo "[check] ruff"
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff format --check --quiet .

check-types: setup ## mypy, strict
	@echo "[check] mypy"
	@$(RUN) -m mypy --no-error-summary $(SOURCES)

check-layers: setup ## import-linter: imports run downward only
	@echo "[check] import-linter"
	@$(VENV)/bin/lint-imports --no-logo

check-docs: setup ## generated pages, links, titles, tidiness
	@echo "[check] reference pages"
	@$(RUN) tools/reference_pages.py --check
	@$(RUN) -m pytest -q --no-header tests/docs tests/tidy -m "not executes_docs"

bench: setup ## every published figure, measured again (many minutes)
	@for program in $$(grep -l '__main__' benchmarks/*.py | grep -v ledger_faults); do \
	    echo "[bench] $$program"; $(RUN) "$$program" || exit 1; \
	done

campaign: setup ## kills, cuts, flips, failing disks, fuzzing: the ledger's tests at full size (an hour or more)
	@$(RUN) benchmarks/ledger_faults.py

docs: ## reference pages from the code, then the HTML site in site/
	@PYTHON="$(PYTHON)" sh tools/prepare docs
	@$(RUN) tools/reference_pages.py
	@$(RUN) -m mkdocs build --strict --quiet
	@echo "[docs] open site/index.html"

clean: ## remove what the targets above made; ledgers and keys stay
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	rm -rf src/*.egg-info
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
