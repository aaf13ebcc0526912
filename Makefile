# Each target makes the virtual environment first, so it needs nothing but Python and make.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
CODE = src tests examples benchmarks

.PHONY: demo test slow check format golden docs pictures bench clean

demo: $(VENV)/installed            # trains on drawn street scenes, with and without unlabeled ones (5 minutes)
	$(BIN)/u2pl demo

test: $(VENV)/installed-dev        # all tests but the slow ones (5 minutes)
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/installed-dev        # the slow tests: whole trainings, several processes, kills (15 minutes)
	$(BIN)/python -m pytest -m slow

check: $(VENV)/installed-dev       # style, types, and the contract on imports
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev      # mends what `check` finds wrong in the style
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

golden: $(VENV)/installed-dev      # records the numbers of tests/golden anew: after a change that changes training
	cd tests/golden && $(abspath $(BIN))/python record.py

docs: $(VENV)/installed-docs       # writes docs/reference/keys.md from the schema, and the site into site/
	$(BIN)/u2pl keys --markdown > docs/reference/keys.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: $(VENV)/installed-dev    # takes docs/pictures/report_*.png anew, with a Chromium (5 minutes)
	$(BIN)/u2pl demo --out runs/pictures
	$(BIN)/u2pl report runs/pictures/u2pl runs/pictures/supervised --out runs/pictures/report.html
	U2PL_REPORT=runs/pictures/report.html $(BIN)/python -m pytest tests/report/test_html_browser.py -k documentation

bench: $(VENV)/installed           # how much a step costs beyond its network passes
	$(BIN)/python benchmarks/step.py --small

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build dist site
