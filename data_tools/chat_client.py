"""One question to an OpenAI-compatible endpoint that we do not trust: bounded in time, bytes, tries and money.

Every request has one deadline for all of it, so a reply that drips or hangs ends there; a reply is read to a byte
limit and never decompressed; a redirect is refused; text of the endpoint reaches an error message only without the
key. Answers go through the cache, good or bad: what was paid for is never asked again.
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

from acc_megatron.data_tools.answer_cache import AnswerCache
from acc_megatron.data_tools.jsonl import BadJson, parse_json
from acc_megatron.data_tools.schema import Dropped
from acc_megatron.errors import ConfigError, DataError

_RETRIED = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
_FATAL = {
    401: "refused the key",
    402: "wants to be paid first",
    403: "forbids this",
    404: "knows no such path or model",
    405: "takes no POST here",
}
_MOST_FAILURES_IN_A_ROW = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where and how to ask; `timeout_seconds` bounds one whole request, `tries` the sends of one request.

    `identity` stands in the cache for who answers, where the URL may change between runs. A reply that is no chat
    completion was paid, so it is an answer for good; without `keep_bad_replies` it is one more failed try.
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
            raise ConfigError("--endpoint cannot be read as a URL: give one as http://host:8000/v1") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--endpoint must be an http or https URL, got {parts.scheme or 'no scheme'}")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("--endpoint holds a user or password: give the key in the environment instead")
        if not all("!" <= character <= "~" for character in self.api_key):
            raise ConfigError("the key in the environment holds blanks or characters that no header can carry")
        if self.concurrency < 1 or self.tries < 1 or not self.timeout_seconds > 0:
            raise ConfigError("concurrency, tries and the time limit must be positive")

    @property
    def url(self) -> str:
        """The endpoint with the path of chat completions; its query, which some servers need, stays behind the path."""
        parts = urlsplit(self.endpoint)
        path = f"{parts.path.rstrip('/').removesuffix('/chat/completions')}/chat/completions"
        return urlunsplit(parts._replace(path=path, fragment=""))

    @property
    def shown_url(self) -> str:
        """The URL as messages and manifests may say it: a query can hold a key."""
        return self.url.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model thought and what it said last, as it came; `finish` is the server's word for why it ended.

    Token counts are the server's own, 0 where it gave none. `thinking_split` says that the server or a `</think>` set
    the thinking apart, be it empty.
    """

    reasoning: str
    answer: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    thinking_split: bool = False  # not in caches of earlier versions


class Client:
    """Asks through the cache; use it as an async context."""

    def __init__(self, settings: ClientSettings, cache: AnswerCache) -> None:
        self._settings, self._cache = settings, cache
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._same: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._failures_in_a_row = 0
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if settings.api_key:
            headers["Authorization"] = f"Bearer {settings.api_key}"
        # the environment's proxies and netrc are not used: they could send the question, or another key, elsewhere
        self._http = httpx2.AsyncClient(headers=headers, timeout=None, follow_redirects=False, trust_env=False)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, body: dict[str, Any], reserved_tokens: int) -> Reply:
        """The reply to a request. Raises Dropped when there is no usable one, DataError when asking is pointless."""
        data = json.dumps({"model": self._settings.model, **body}, sort_keys=True).encode()
        identity = self._settings.identity or self._settings.url
        key = hashlib.sha256(identity.encode() + b"\0" + data).hexdigest()
        lock = self._same.setdefault(key, asyncio.Lock())  # the same question twice at once is sent once
        async with lock, self._slots:
            outcome = self._cache.get(key) or await self._send_until_answered(key, data, reserved_tokens)
        if "rejected" in outcome:
            raise Dropped(outcome["rejected"], outcome["detail"])
        return Reply(**outcome)

    async def _send_until_answered(self, key: str, data: bytes, reserved_tokens: int) -> dict[str, Any]:
        problem = Dropped("no_reply", "never sent")
        for number in range(self._settings.tries):
            sent = self._cache.begin(key, reserved_tokens)
            cost: int | None = None  # unknown where the request was cut: it may have been paid
            wait = self._settings.backoff_seconds * 2**number * random.uniform(0.5, 1.5)
            try:
                async with asyncio.timeout(self._settings.timeout_seconds):
                    status, headers, reply = await self._post(key, data)
            except TimeoutError:
                problem = Dropped("timeout", f"no whole reply in {self._settings.timeout_seconds:g} s")
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
                    self._stop_if_pointless(status, headers, sent)
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
                f"{self._failures_in_a_row} requests in a row had no answer, the last: {problem}; is the endpoint up? "
                "What was answered is in the cache: run the same command again"
            )
        raise problem

    async def _post(self, key: str, data: bytes) -> tuple[int, httpx2.Headers, bytes | None]:
        """Status, headers and body; no body where it is encoded or passes the byte limit."""
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

    def _stop_if_pointless(self, status: int, headers: httpx2.Headers, sent: int) -> None:
        if status in _FATAL:
            self._cache.fail(sent, tokens=0)
            hint = "; no key was sent" if status == 401 and not self._settings.api_key else ""
            hint = "; most base URLs end in /v1" if status == 404 else hint
            raise DataError(f"{self._settings.shown_url} {_FATAL[status]} (status {status}{hint})")
        if 300 <= status < 400:
            self._cache.fail(sent, tokens=0)
            target = self._clean(_host_of(headers.get("location", "")))
            raise DataError(f"{self._settings.shown_url} redirects to {target}: refused; give the final URL")

    def _outcome(self, reply: bytes | None, reserved_tokens: int) -> tuple[dict[str, Any], int]:
        """What to keep of a reply that was paid, and its tokens; a liar's count is at least that of its text."""
        if reply is None:
            detail = f"encoded, or more than {self._settings.max_reply_bytes} bytes"
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
            return {"rejected": "echoes_key", "detail": "the reply holds the key it was sent"}, tokens
        return {
            "reasoning": reasoning,
            "answer": answer,
            "finish": self._clean(str(finish))[:60],
            "prompt_tokens": _counted(value, "prompt_tokens", 0),
            "completion_tokens": _counted(value, "completion_tokens", 0),
            # an empty field beside a text that was cut may be a server that splits nothing off
            "thinking_split": "</think>" in message["content"]
            or (_reasoning(message) is not None and finish != "length"),
        }, tokens

    def _message(self, reply: bytes | None) -> str:
        """The endpoint's own words for an error, without the key and cut to 200 characters."""
        try:
            value = parse_json(reply or b"")
            error = value.get("error", value) if isinstance(value, dict) else value
            text = str(error.get("message", "") if isinstance(error, dict) else error)
        except BadJson:
            text = ""
        return self._clean(text)[:200]

    def _clean(self, text: str) -> str:
        text = "".join(character for character in text if character.isprintable())
        key = self._settings.api_key  # sought last: what cannot be printed may have stood inside it
        return re.sub(re.escape(key), "[key]", text, flags=re.IGNORECASE) if key else text


def _counted(value: dict[str, Any], name: str, otherwise: int) -> int:
    """A count of the reply's usage, where it is one."""
    usage = value.get("usage")
    counted = usage.get(name) if isinstance(usage, dict) else None
    return counted if type(counted) is int and 0 <= counted <= 1 << 40 else otherwise


def _first_choice(value: Any) -> tuple[dict[str, Any], object]:
    """Message and finish reason of the first choice; BadJson for another shape.

    Content may be null where there is reasoning: a server that splits them says so when thinking was cut.
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
    """The text in the fields that servers use for reasoning; None where the server splits nothing off."""
    texts = [text for name in ("reasoning_content", "reasoning") if isinstance(text := message.get(name), str)]
    return next((text for text in texts if text.strip()), "" if texts else None)


def _split(message: dict[str, Any]) -> tuple[str, str]:
    """Reasoning and answer: from the fields servers use for reasoning, else around `</think>` in the content."""
    reasoning, content = _reasoning(message) or "", str(message["content"])
    if not reasoning and "</think>" in content:
        reasoning, _, content = content.partition("</think>")
        reasoning = reasoning.strip().removeprefix("<think>")
    return reasoning.strip("\n"), content


def _host_of(location: str) -> str:
    """The host that a redirect names."""
    try:
        return urlsplit(location).hostname or "itself"
    except ValueError:
        return "no URL"


def _retry_after(text: str, now: Callable[[], float] = time.time) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 when it says neither."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
