# Two commands do all on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-run
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo install prometheus test lint unit schemas clean

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
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu,train,service,dev]'
	@# Only its table of known lenses is read; what it depends on weighs half a gigabyte.
	$(BIN)/pip install --quiet --no-deps lenscat==1.1.3
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

unit: install prometheus
	$(BIN)/pytest

# For the tests of deploy/: Debian's packages, unpacked and not installed. Where they cannot be had, these tests are skipped.
prometheus: install
	@PATH="$(CURDIR)/$(VENV)/prometheus/usr/bin:$$PATH"; \
	if ! { command -v prometheus && command -v promtool; } >/dev/null; then \
		mkdir -p $(VENV)/prometheus && cd $(VENV)/prometheus && \
		{ apt-get download prometheus promtool || { apt-get update && apt-get download prometheus promtool; }; } >log 2>&1 && \
		for package in *.deb; do dpkg-deb --extract "$$package" . && rm "$$package"; done || \
		echo "No Prometheus here, and none to be had from Debian: the tests of deploy/ are skipped."; \
	fi

schemas: install
	$(BIN)/scanner schemas --out schemas

clean:
	rm -rf $(VENV) $(DEMO)
