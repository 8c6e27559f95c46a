"""From agent trajectories to a long-context model, on megatron-core.

`import acc_megatron as acc` imports nothing else: each public name is loaded when it is first used.
docs/python.md shows all of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acc_megatron import kernels as kernels
    from acc_megatron.api import compile as compile
    from acc_megatron.api import convert as convert
    from acc_megatron.api import load_config as load_config
    from acc_megatron.api import open_dataset as open_dataset
    from acc_megatron.api import read_run as read_run
    from acc_megatron.api import read_scores as read_scores
    from acc_megatron.data.documents import Dataset as Dataset
    from acc_megatron.data.documents import Document as Document
    from acc_megatron.errors import AccError as AccError
    from acc_megatron.plan import plan_recipe

    plan = plan_recipe

__version__ = "0.1.0"

# public name -> the module that defines it
_NAMES = {
    **dict.fromkeys(("compile", "convert", "load_config", "open_dataset", "read_run", "read_scores"), "api"),
    **dict.fromkeys(("Dataset", "Document"), "data.documents"),
    "AccError": "errors",
}
_PACKAGES = ("kernels", "plan")  # acc.plan(...) calls the package

__all__ = ["__version__", *sorted((*_NAMES, *_PACKAGES))]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"acc_megatron.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module 'acc_megatron' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"acc_megatron.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
