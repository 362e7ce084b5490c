PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools

.PHONY: demo test test-all lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      set everything up and cut the dough: video to simulated cut, with a report"
	@echo "make test      set everything up and run the essential tests"
	@echo "make test-all  run every test, the slow ones too"
	@echo "make lint      style and layers"

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[hand]"
	@touch $@

$(TOOLS): $(READY)
	@echo "adding what tests need (once)"
	$(BIN)/pip install --quiet -c constraints.txt --group dev
	@touch $@

demo: $(READY)
	$(BIN)/lucibot run cut_dough --seed 0

test: $(TOOLS)
	$(BIN)/pytest -m "not slow"

test-all: $(TOOLS)
	$(BIN)/pytest

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info
