"""The context size of a served model, as its server states it in the list of models."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.errors import ConfigError
from acc_megatron.evaluate.models.settings import ModelSettings

SECONDS = 20.0  # for the complete reply
MOST_BYTES = 4 << 20
# the names of vLLM and SGLang, then of other servers
NAMES = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx", "n_ctx_train")


def with_windows(
    models: Mapping[str, ModelSettings], known: Mapping[str, int], show: Callable[[str], None]
) -> dict[str, ModelSettings]:
    """Fill `window_tokens` of each endpoint without one: from `known` (an earlier start), else from its server.

    Raises ConfigError if the server does not state it.
    """
    found = dict(models)
    for name, settings in models.items():
        if settings.endpoint is None or settings.window_tokens is not None:
            continue
        window = known.get(name) or served_window(settings)
        if window is None:
            raise ConfigError(
                f"models.{name}: the server at {models_url(settings.endpoint).partition('?')[0]} does not state the "
                f"context size of model {settings.model!r}: set window_tokens (with --endpoint: --window-tokens)"
            )
        show(f"eval {name}: window of {window:,} tokens")
        found[name] = dataclasses.replace(settings, window_tokens=window)
    return found


def models_url(endpoint: str) -> str:
    """The URL of the list of models next to that of chat completions, with the endpoint's own query."""
    parts = urlsplit(endpoint)
    return urlunsplit(
        parts._replace(path=f"{parts.path.rstrip('/').removesuffix('/chat/completions')}/models", fragment="")
    )


def served_window(settings: ModelSettings) -> int | None:
    """Tokens that the server states for the model; None if it does not, or gives no list of models.

    The reply is bounded in time and bytes. Redirects are refused; proxies of the environment are ignored.
    """
    assert settings.endpoint is not None
    key = os.environ.get(settings.key_variable, "")
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
    deadline = time.monotonic() + SECONDS
    data = b""
    try:
        with (
            httpx2.Client(headers=headers, timeout=SECONDS, follow_redirects=False, trust_env=False) as client,
            client.stream("GET", models_url(settings.endpoint)) as response,
        ):
            if response.status_code != 200:
                return None
            for part in response.iter_raw():
                data += part
                if len(data) > MOST_BYTES or time.monotonic() > deadline:
                    return None
        return _window(parse_json(data), settings.model)
    except (httpx2.HTTPError, httpx2.InvalidURL, BadJson, UnicodeError):
        return None


def _window(value: Any, model: str | None) -> int | None:
    listed = value.get("data") if isinstance(value, dict) else None
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and entry.get("id") == model:
            meta = entry.get("meta")
            for place in (entry, meta if isinstance(meta, dict) else {}):
                for name in NAMES:
                    if type(place.get(name)) is int and place[name] > 0:
                        return int(place[name])
    return None
