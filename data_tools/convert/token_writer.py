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
        self._supervised: list[bool] = []
        self._is_plain: list[bool] = []
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
        self._append(self.tokenizer.control_ids[name], supervised, is_plain=False)
        return self

    def ids(self) -> np.ndarray:
        """Everything written, int32 `[tokens]`."""
        self._close_segment()
        ids = np.concatenate([np.empty(0, np.int32), *self._ids])
        is_control = ids >= self.tokenizer.first_control_id
        assert not (is_control & self._repeated(self._is_plain)).any(), "plain text became a control id"
        return ids

    def mask(self) -> np.ndarray:
        """1 for supervised tokens, uint8 `[tokens]`."""
        self._close_segment()
        return self._repeated(self._supervised).astype(np.uint8)

    def _close_segment(self) -> None:
        if self._text:
            ids = self.tokenizer.encode(self._text).view(np.int32)
            self._append(ids, self._text_supervised, is_plain=True)
        self._text = ""

    def _append(self, ids: np.ndarray, supervised: bool, *, is_plain: bool) -> None:
        self._ids.append(ids)
        self._supervised.append(supervised)
        self._is_plain.append(is_plain)

    def _repeated(self, segments: list[bool]) -> np.ndarray:
        """A value of each segment for each of its tokens, bool `[tokens]`."""
        return np.repeat(np.array(segments, bool), [len(ids) for ids in self._ids])
