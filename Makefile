# Two commands do all on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-run
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo install test lint unit schemas clean

help:
	@echo "make demo     install what a scan needs, draw two tiles of sky, scan them, say where to look"
	@echo "make install  prepare .venv with everything the tests need"
	@echo "make test     lint, types, architecture, tests"
	@echo "make schemas  write schemas/ anew from the models"
	@echo "make clean    remove .venv and what the demo made"

$(VENV)/scan.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu]'
	@touch $@

$(VENV)/all.stamp: $(VENV)/scan.stamp
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu,train,dev]'
	@touch $@

install: $(VENV)/all.stamp

demo: $(VENV)/scan.stamp
	$(BIN)/python examples/demo.py $(DEMO)

test: lint unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: install
	$(BIN)/pytest

schemas: install
	$(BIN)/scanner schemas --out schemas

clean:
	rm -rf $(VENV) $(DEMO)
