"""Documents of a dataset folder as torch tensors, in the form that transformers models take."""

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from acc_megatron.data.documents import Dataset

IGNORED = -100  # a label that torch's cross entropy leaves out


class TorchDocuments(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """One item a document: `input_ids` and `labels`, both int64 `[tokens]`.

    A label is the token itself where it is a target, and -100 elsewhere. Labels are not shifted, because the models of
    transformers shift them.
    """

    def __init__(self, documents: "Dataset") -> None:
        self._documents = documents

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        document = self._documents[number]
        ids = torch.from_numpy(document.ids.astype(np.int64))
        return {"input_ids": ids, "labels": ids.masked_fill(torch.from_numpy(document.mask == 0), IGNORED)}
