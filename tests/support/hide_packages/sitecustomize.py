"""Hides packages from this interpreter and its children: put this folder on PYTHONPATH and set HIDDEN_PACKAGES."""

import os
import sys


class _Hider:
    names = frozenset(os.environ.get("HIDDEN_PACKAGES", "").split())

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, _Hider())
