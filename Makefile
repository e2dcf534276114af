# Two commands do everything on a new machine: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
LABEL_VENV ?= .venv-label
LABEL_BIN = $(LABEL_VENV)/bin
LABEL_INSTALLED = $(LABEL_VENV)/.installed

.PHONY: setup label-env demo lint docs test test-lowest test-wheel torture clean

setup: $(INSTALLED)

$(INSTALLED): requirements.lock requirements-dev.lock setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements-dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

label-env: $(LABEL_INSTALLED)

# MONAI Label and pydicom-seg ask for older versions than those that MONAI 1.6 needs, so they come without theirs.
$(LABEL_INSTALLED): requirements-label.lock setup.cfg pyproject.toml
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_BIN)/pip install --quiet -r requirements-label.lock
	$(LABEL_BIN)/pip install --quiet --no-deps monailabel==0.8.5 pydicom-seg==0.4.1
	$(LABEL_BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	$(LABEL_BIN)/python -m aide_monai.label_app.compatibility
	touch $@

demo: setup
	$(BIN)/aide demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages as a site that opens without a network: site/index.html.
docs: export NO_MKDOCS_2_WARNING = 1
docs: setup
	$(BIN)/mkdocs build --strict --quiet

# One thread for each of the two test processes: on two cores more threads wait for each other. Whole files go to one of
# them, because tests of a server build on each other.
test: export OMP_NUM_THREADS = 1
test: export AIDE_LABEL_PYTHON = $(abspath $(LABEL_BIN))/python
test: lint docs label-env
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term --cov-fail-under=90

# The lowest versions that setup.cfg allows. torch's bound is MONAI's and is not tried: it brings gigabytes.
TORCH ?= torch==2.13.0
LOWEST = $(VENV)-lowest
LOWEST_TESTS = $(addprefix tests/,io data metrics reports labels cli)

test-lowest: export OMP_NUM_THREADS = 1
test-lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --quiet uv
	echo "$(TORCH)" > $(LOWEST)/torch.txt
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --override $(LOWEST)/torch.txt -e .
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) pytest hypothesis jsonschema psutil
	$(LOWEST)/bin/python -m pytest -q $(LOWEST_TESTS)

# The wheel with what it declares, in an environment and a folder that know nothing of this one.
test-wheel:
	$(PYTHON) tests/wheel_alone.py

# Attacks that take hours, see docs/reliability.md. No piece starts after this time; the next call goes on.
MINUTES ?= 240

torture: export OMP_NUM_THREADS = 1
torture: export AIDE_LABEL_PYTHON = $(abspath $(LABEL_BIN))/python
torture: setup label-env
	$(BIN)/python -m benchmarks.torture --minutes $(MINUTES)

clean:
	rm -rf $(VENV) $(LABEL_VENV) $(LOWEST) runs
