"""A client for OpenAI-compatible endpoints that are not trusted: time, bytes, tries and cost are bounded.

The deadline covers the whole request, so slow and hanging replies end there. Replies are read up to a byte limit and
never decompressed, redirects are refused, and error messages quote the endpoint only without the API key. All answers,
good or bad, go through the cache: no request is paid for twice.
"""

import asyncio
import hashlib
import json
import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakValueDictionary

import httpx2

from acc_megatron.common.answer_cache import AnswerCache
from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.errors import ConfigError, DataError, Dropped

_RETRIED = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
_FATAL = {
    401: "rejected the API key",
    402: "requires payment",
    403: "denied access",
    404: "does not know this path or model",
    405: "does not accept POST requests",
}
_MOST_FAILURES_IN_A_ROW = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The endpoint and the limits; `timeout_seconds` bounds one whole request, `tries` how often it is sent.

    `identity` replaces the URL in the keys of the cache, for endpoints whose URL changes between runs. A reply that is
    not a chat completion was paid for, so it is kept as a final answer; without `keep_bad_replies` the request is
    tried again.
    """

    endpoint: str
    model: str
    api_key: str = field(default="", repr=False)
    concurrency: int = 8
    tries: int = 5
    timeout_seconds: float = 600.0
    max_reply_bytes: int = 16 << 20
    backoff_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    identity: str = ""
    keep_bad_replies: bool = True

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.endpoint)
            _ = parts.port
        except ValueError:
            raise ConfigError("--endpoint is not a URL: give one such as http://host:8000/v1") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--endpoint must be an http or https URL, got {parts.scheme or 'no scheme'}")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("--endpoint contains a user or password: give the API key in the environment instead")
        if not all("!" <= character <= "~" for character in self.api_key):
            raise ConfigError("the API key in the environment contains characters that an HTTP header cannot")
        if self.concurrency < 1 or self.tries < 1 or not self.timeout_seconds > 0:
            raise ConfigError("concurrency, tries and the time limit must be positive")

    @property
    def url(self) -> str:
        """The endpoint with the path of chat completions and its own query, which some servers need."""
        parts = urlsplit(self.endpoint)
        path = f"{parts.path.rstrip('/').removesuffix('/chat/completions')}/chat/completions"
        return urlunsplit(parts._replace(path=path, fragment=""))

    @property
    def shown_url(self) -> str:
        """The URL without its query, which may contain a key: for messages and manifests."""
        return self.url.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Reply:
    """Thinking and answer of a model, unchanged; `finish` is the server's finish_reason.

    Token counts are the server's, 0 where it gave none. `thinking_split` says whether the server or a `</think>`
    separated the thinking, even an empty one, from the answer.
    """

    reasoning: str
    answer: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    thinking_split: bool = False  # missing in caches of earlier versions


class Client:
    """Sends requests through the cache; use it as an async context manager."""

    def __init__(self, settings: ClientSettings, cache: AnswerCache) -> None:
        self._settings, self._cache = settings, cache
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._same: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._failures_in_a_row = 0
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if settings.api_key:
            headers["Authorization"] = f"Bearer {settings.api_key}"
        # proxies and netrc of the environment are ignored: they could send the request, or another key, elsewhere
        self._http = httpx2.AsyncClient(headers=headers, timeout=None, follow_redirects=False, trust_env=False)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, body: dict[str, Any], reserved_tokens: int) -> Reply:
        """The reply to a request. Raises Dropped without a usable reply, DataError if no request can succeed."""
        data = json.dumps({"model": self._settings.model, **body}, sort_keys=True).encode()
        identity = self._settings.identity or self._settings.url
        key = hashlib.sha256(identity.encode() + b"\0" + data).hexdigest()
        lock = self._same.setdefault(key, asyncio.Lock())  # identical concurrent requests are sent once
        async with lock, self._slots:
            outcome = self._cache.get(key) or await self._send_until_answered(key, data, reserved_tokens)
        if "rejected" in outcome:
            raise Dropped(outcome["rejected"], outcome["detail"])
        return Reply(**outcome)

    async def _send_until_answered(self, key: str, data: bytes, reserved_tokens: int) -> dict[str, Any]:
        problem = Dropped("no_reply", "never sent")
        for number in range(self._settings.tries):
            sent = self._cache.begin(key, reserved_tokens)
            cost: int | None = None  # unknown for an interrupted request: it may have been billed
            wait = self._settings.backoff_seconds * 2**number * random.uniform(0.5, 1.5)
            try:
                async with asyncio.timeout(self._settings.timeout_seconds):
                    status, headers, reply = await self._post(key, data)
            except TimeoutError:
                problem = Dropped("timeout", f"no complete reply within {self._settings.timeout_seconds:g} s")
            except httpx2.HTTPError as error:
                cost = 0 if isinstance(error, httpx2.ConnectError) else None
                problem = Dropped("connection", type(error).__name__)
            else:
                if status == 200:
                    outcome, cost = self._outcome(reply, reserved_tokens)
                    if "rejected" not in outcome or self._settings.keep_bad_replies:
                        self._cache.finish(sent, key, outcome, cost)
                        self._failures_in_a_row = 0
                        return outcome
                    problem = Dropped(outcome["rejected"], outcome["detail"])
                else:
                    cost = 0
                    self._stop_if_fatal(status, headers, sent)
                    problem = Dropped(f"http_{status}", self._message(reply))
                    if status not in _RETRIED:
                        self._cache.fail(sent, tokens=0)
                        self._failures_in_a_row = 0
                        raise problem
                    wait = max(wait, _retry_after(headers.get("retry-after", "")))
            self._cache.fail(sent, tokens=cost)
            if number + 1 < self._settings.tries:
                await asyncio.sleep(min(wait, self._settings.longest_wait_seconds))
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
            raise DataError(
                f"{self._failures_in_a_row} requests in a row failed, the last with: {problem}; check it, then run "
                "the same command again: all answers so far are in the cache"
            )
        raise problem

    async def _post(self, key: str, data: bytes) -> tuple[int, httpx2.Headers, bytes | None]:
        """Status, headers and body; the body is None when it is encoded or exceeds the byte limit."""
        headers = {"Idempotency-Key": key}
        async with self._http.stream("POST", self._settings.url, content=data, headers=headers) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                return response.status_code, response.headers, None
            parts, num_bytes = [], 0
            async for part in response.aiter_raw():
                num_bytes += len(part)
                if num_bytes > self._settings.max_reply_bytes:
                    return response.status_code, response.headers, None
                parts.append(part)
            return response.status_code, response.headers, b"".join(parts)

    def _stop_if_fatal(self, status: int, headers: httpx2.Headers, sent: int) -> None:
        if status in _FATAL:
            self._cache.fail(sent, tokens=0)
            hint = "; no API key was sent" if status == 401 and not self._settings.api_key else ""
            hint = "; most base URLs end in /v1" if status == 404 else hint
            raise DataError(f"{self._settings.shown_url} {_FATAL[status]} (status {status}{hint})")
        if 300 <= status < 400:
            self._cache.fail(sent, tokens=0)
            target = self._clean(_host_of(headers.get("location", "")))
            raise DataError(f"{self._settings.shown_url} redirects to {target}, which is refused: give the final URL")

    def _outcome(self, reply: bytes | None, reserved_tokens: int) -> tuple[dict[str, Any], int]:
        """The outcome of a reply and its tokens; a count that is too low for the text is not believed."""
        if reply is None:
            detail = f"compressed, or more than {self._settings.max_reply_bytes} bytes"
            return {"rejected": "reply_too_large", "detail": detail}, reserved_tokens
        try:
            value = parse_json(reply)
            message, finish = _first_choice(value)
        except BadJson as error:
            return {"rejected": "bad_reply", "detail": self._clean(f"{error.reason}: {error.detail}")}, reserved_tokens
        reasoning, answer = _split(message)
        tokens = _counted(value, "total_tokens", reserved_tokens)
        tokens = max(tokens, (len(reasoning) + len(answer)) // 16)
        if self._settings.api_key and self._settings.api_key in f"{reasoning}\0{answer}":
            return {"rejected": "echoes_key", "detail": "the reply contains the API key"}, tokens
        return {
            "reasoning": reasoning,
            "answer": answer,
            "finish": self._clean(str(finish))[:60],
            "prompt_tokens": _counted(value, "prompt_tokens", 0),
            "completion_tokens": _counted(value, "completion_tokens", 0),
            # with an answer that was cut, an empty reasoning field does not prove that the server separates thinking
            "thinking_split": "</think>" in message["content"]
            or (_reasoning(message) is not None and finish != "length"),
        }, tokens

    def _message(self, reply: bytes | None) -> str:
        """The error message of the endpoint, without the API key and cut to 200 characters."""
        try:
            value = parse_json(reply or b"")
            error = value.get("error", value) if isinstance(value, dict) else value
            text = str(error.get("message", "") if isinstance(error, dict) else error)
        except BadJson:
            text = ""
        return self._clean(text)[:200]

    def _clean(self, text: str) -> str:
        text = "".join(character for character in text if character.isprintable())
        key = self._settings.api_key  # replaced last: unprintable characters may have been inside it
        return re.sub(re.escape(key), "[key]", text, flags=re.IGNORECASE) if key else text


def _counted(value: dict[str, Any], name: str, otherwise: int) -> int:
    """A count in the `usage` of a reply, if it is valid."""
    usage = value.get("usage")
    counted = usage.get(name) if isinstance(usage, dict) else None
    return counted if type(counted) is int and 0 <= counted <= 1 << 40 else otherwise


def _first_choice(value: Any) -> tuple[dict[str, Any], object]:
    """Message and finish reason of the first choice. Raises BadJson for another shape.

    Content may be null next to reasoning: a server that separates them returns that when the thinking was cut.
    """
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else {}
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise BadJson("shape", "no choices[0].message")
    if message.get("content") is None and _reasoning(message):
        message = message | {"content": ""}
    if not isinstance(message.get("content"), str):
        raise BadJson("shape", "no choices[0].message.content")
    return message, choice.get("finish_reason")


def _reasoning(message: dict[str, Any]) -> str | None:
    """The text in the fields that servers use for reasoning; None where the message has none of them."""
    texts = [text for name in ("reasoning_content", "reasoning") if isinstance(text := message.get(name), str)]
    return next((text for text in texts if text.strip()), "" if texts else None)


def _split(message: dict[str, Any]) -> tuple[str, str]:
    """Reasoning and answer: from the fields that servers use for reasoning, or around `</think>` in the content."""
    reasoning, content = _reasoning(message) or "", str(message["content"])
    if not reasoning and "</think>" in content:
        reasoning, _, content = content.partition("</think>")
        reasoning = reasoning.strip().removeprefix("<think>")
    return reasoning.strip("\n"), content


def _host_of(location: str) -> str:
    """The host of a redirect."""
    try:
        return urlsplit(location).hostname or "the same host"
    except ValueError:
        return "an invalid URL"


def _retry_after(text: str, now: Callable[[], float] = time.time) -> float:
    """The seconds of a Retry-After header, which is a number or a date; 0 for anything else."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
