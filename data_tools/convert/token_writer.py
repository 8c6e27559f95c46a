"""Token ids and loss mask from control tokens and plain text, for chat templates to write into."""

import numpy as np

from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError


class TokenWriter:
    """Collects ids and mask. Control tokens go in by id, so plain text can never become one.

    Text between two control tokens is encoded as one segment: clean text gets the ids that encoding the string of the
    whole chat would give.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._ids: list[np.ndarray] = []
        self._num_tokens, self._num_controls = 0, 0
        self._supervised: list[slice] = []
        self._text, self._text_supervised = "", False

    def text(self, text: str, *, supervised: bool = False) -> "TokenWriter":
        """Append text to the open segment; a change of `supervised` starts a new one."""
        if supervised != self._text_supervised:
            self._close_segment()
        self._text, self._text_supervised = self._text + text, supervised
        return self

    def control(self, name: str, *, supervised: bool = False) -> "TokenWriter":
        """Append a control token. Raises DataError when the tokenizer does not have it."""
        if name not in self.tokenizer.control:
            raise DataError(f"tokenizer {self.tokenizer.name} has no control token {name}, which the template needs")
        if self._text:
            self._close_segment()
        self._append(self.tokenizer.control_ids[name], supervised)
        self._num_controls += 1
        return self

    def ids(self) -> np.ndarray:
        """Everything written, int32 `[tokens]`."""
        self._close_segment()
        ids = np.concatenate(self._ids) if self._ids else np.empty(0, np.int32)
        num_control_ids = np.count_nonzero(ids >= self.tokenizer.first_control_id)
        assert num_control_ids == self._num_controls, "plain text became a control id"
        return ids

    def lengths(self) -> tuple[int, int]:
        """The number of tokens, and of supervised ones."""
        self._close_segment()
        return self._num_tokens, sum(tokens.stop - tokens.start for tokens in self._supervised)

    def mask(self) -> np.ndarray:
        """1 for supervised tokens, uint8 `[tokens]`."""
        self._close_segment()
        mask = np.zeros(self._num_tokens, np.uint8)
        for tokens in self._supervised:
            mask[tokens] = 1
        return mask

    def _close_segment(self) -> None:
        if self._text:
            ids = self.tokenizer.encode(self._text).view(np.int32)
            self._append(ids, self._text_supervised)
        self._text = ""

    def _append(self, ids: np.ndarray, supervised: bool) -> None:
        start = self._num_tokens
        self._num_tokens += len(ids)
        self._ids.append(ids)
        if supervised:
            self._supervised.append(slice(start, self._num_tokens))
