"""A dataset folder as a sequence of documents, for use from Python; torch and pandas are loaded only when used."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.manifest import DatasetManifest
from acc_megatron.optional import is_installed, missing_package

if TYPE_CHECKING:
    from pandas import DataFrame

    from acc_megatron.data.torch_documents import TorchDocuments


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One document; `ids` int32 and `mask` uint8 are read-only `[tokens]`, 1 marks a token that is a target.

    `pieces` are the pieces of the context in order, each with kind, title, first_token and tokens. `extra` has the
    provenance, the settings of the compile and every field of the input that has no column.
    """

    number: int
    id: str
    agent: str
    ids: np.ndarray
    mask: np.ndarray
    pieces: list[dict[str, Any]]
    extra: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ids)


class Dataset:
    """The documents of a dataset folder: `len`, index, slice and iterate. Raises DataError for a damaged folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()  # a copy in another process may have another working folder
        self._folder = open_dataset(path)

    def __len__(self) -> int:
        return len(self._folder)

    @overload
    def __getitem__(self, number: int) -> Document: ...

    @overload
    def __getitem__(self, number: slice) -> list[Document]: ...

    def __getitem__(self, number: int | slice) -> Document | list[Document]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        place = range(len(self))[number]  # negative numbers count from the end; IndexError outside
        ids, mask = self._folder.document(place)
        row = self._folder.samples.slice(place, 1).to_pylist()[0]
        return Document(place, row["id"], row["agent"], ids, mask, row["pieces"], json.loads(row["extra"]))

    def __iter__(self) -> Iterator[Document]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        return f"<Dataset {self.path}: {len(self):,} documents, {self.manifest['tokens']:,} tokens>"

    def __reduce__(self) -> tuple[type["Dataset"], tuple[Path]]:
        """A copy in another process opens the folder again: the maps of the files are not copied."""
        return Dataset, (self.path,)

    @property
    def manifest(self) -> DatasetManifest:
        """Counts, settings, tokenizer and files of the folder."""
        return self._folder.manifest

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every document, `[documents]` int64."""
        return self._folder.lengths

    def to_torch(self) -> "TorchDocuments":
        """Return a map-style torch dataset; see TorchDocuments. A DataLoader can read it in several workers."""
        from acc_megatron.data.torch_documents import TorchDocuments

        return TorchDocuments(self)

    def to_pandas(self) -> "DataFrame":
        """Return the sample table, one row a document, as a pandas frame; raises EnvironmentProblem without pandas."""
        if not is_installed("pandas"):
            raise missing_package("pandas", "to_pandas")
        return self._folder.samples.to_pandas()
