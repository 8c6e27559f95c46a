"""A model behind an OpenAI-compatible endpoint: asked concurrently through the cache, within bounds."""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

from acc_megatron.data_tools.chat_client import Client, ClientSettings, Reply
from acc_megatron.data_tools.schema import Dropped
from acc_megatron.errors import DataError
from acc_megatron.evaluate.chat import THINKING_OPENED
from acc_megatron.evaluate.models import Answer, Asking, NoAnswer, Outcome, Prompt


class EndpointModel:
    """Asks chat completions; an answer that is in the cache is not asked for again.

    `identity` stands in the cache for the model where the URL of its server may change. Raises DataError from
    `answer` when asking on is pointless, such as a key that is refused; what was answered until then is kept.
    """

    def __init__(self, asking: Asking, *, identity: str = "") -> None:
        settings = asking.settings
        assert settings.endpoint is not None and settings.model is not None and settings.window_tokens is not None
        self.name, self.window_tokens = asking.name, settings.window_tokens
        self._asking, self._settings = asking, settings
        self._client = ClientSettings(
            endpoint=settings.endpoint,
            model=settings.model,
            api_key=os.environ.get(settings.key_variable, ""),
            concurrency=settings.concurrency,
            tries=settings.tries,
            timeout_seconds=settings.timeout_seconds,
            max_reply_bytes=settings.max_reply_bytes,
            identity=identity,
            keep_bad_replies=False,
        )

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """The tokens of the prompt under our own tokenizer and template; the server's may add a few."""
        return len(self._asking.ids(prompt))

    def describe(self) -> dict[str, object]:
        """Endpoint without its query, the model's name there, and sampling."""
        return {
            "endpoint": self._client.url.partition("?")[0],
            "model": self._settings.model,
            "temperature": self._settings.temperature,
        }

    def answer(self, prompts: Sequence[Prompt], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        """An outcome for each prompt, in order; up to `concurrency` requests are in flight."""
        try:
            return asyncio.run(self._answer(prompts, on_outcome))
        except DataError as error:
            settings = self._settings
            raise DataError(
                f"models.{self.name}: {error}; it asked for model {settings.model!r}, "
                f"with the key in the environment variable {settings.key_variable}"
            ) from None

    async def _answer(self, prompts: Sequence[Prompt], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(prompts)
        places = iter(range(len(prompts)))

        async def work(client: Client) -> None:
            for place in places:  # shared: each worker takes the next prompt
                outcomes[place] = await self._ask(client, prompts[place])
                on_outcome(outcomes[place])  # type: ignore[arg-type]

        async with Client(self._client, self._asking.cache) as client:
            workers = [asyncio.create_task(work(client)) for _ in range(self._settings.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return [outcome for outcome in outcomes if outcome is not None]

    async def _ask(self, client: Client, prompt: Prompt) -> Outcome:
        if late := self._asking.out_of_time():
            return late
        own_count = self.num_prompt_tokens(prompt)
        try:
            async with asyncio.timeout(self._asking.seconds_left()):
                reply = await client.ask(self._body(prompt), own_count + prompt.max_new_tokens)
        except TimeoutError:
            return NoAnswer("out_of_time", "max_seconds were over while it was asked; run again to go on")
        except Dropped as dropped:
            return NoAnswer(dropped.reason, dropped.detail)
        return Answer(
            response=self._response(reply),
            reasoning_chars=len(reply.reasoning),
            finish_reason=reply.finish,
            prompt_tokens=reply.prompt_tokens or own_count,
            new_tokens=reply.completion_tokens or self._asking.tokenizer.count(reply.reasoning + reply.answer),
        )

    def _response(self, reply: Reply) -> str:
        """The last words; thinking that was cut before its end is no answer, whoever opened it."""
        if reply.reasoning or reply.thinking_split or self._settings.template != THINKING_OPENED:
            return reply.answer
        return f"<think>\n{reply.answer}"

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            "messages": list(prompt.messages),
            "max_tokens": prompt.max_new_tokens,
            "temperature": settings.temperature,
            "seed": self._asking.seed + prompt.repeat,
            "stream": False,
        }
        body |= {name: getattr(settings, name) for name in ("top_p", "top_k") if getattr(settings, name) is not None}
        if settings.enable_thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": settings.enable_thinking}
        return body
