"""The client of OpenAI-compatible endpoints."""

from acc_megatron.common.chat_client import _retry_after


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert _retry_after("7") == 7
    assert _retry_after("Thu, 01 Jan 1970 00:01:40 GMT", lambda: 40.0) == 60
    for text in ("", "-5", "nan", "inf", "soon", "Thu, 99 Jan 1970"):
        assert _retry_after(text) == 0
