"""A model behind an OpenAI-compatible endpoint, asked concurrently, with cached answers and budgets."""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

from acc_megatron.common.chat_client import Client, ClientSettings, Reply
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.errors import DataError, Dropped
from acc_megatron.evaluate.models.model import ModelContext
from acc_megatron.evaluate.models.prompt import Answer, NoAnswer, Outcome, Prompt


class EndpointModel:
    """Asks for chat completions; a cached answer is not asked for again.

    `identity` identifies the model in the cache if the URL of its server may change. `answer` raises DataError if no
    request can succeed, such as with a rejected key; earlier answers are kept.
    """

    def __init__(self, context: ModelContext, *, identity: str = "") -> None:
        settings = context.settings
        assert settings.endpoint is not None and settings.model is not None and settings.window_tokens is not None
        self.name, self.window_tokens = context.name, settings.window_tokens
        self._context, self._settings = context, settings
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
        """Number of tokens of the prompt with our own tokenizer and template; the server may count a few more."""
        return len(self._context.ids(prompt))

    def describe(self) -> dict[str, object]:
        """The endpoint without its query, the model's name there and the temperature."""
        return {
            "endpoint": self._client.url.partition("?")[0],
            "model": self._settings.model,
            "temperature": self._settings.temperature,
        }

    def answer(self, prompts: Sequence[Prompt], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        """An outcome for each prompt, in order; at most `concurrency` requests are in flight."""
        try:
            return asyncio.run(self._answer(prompts, on_outcome))
        except DataError as error:
            settings = self._settings
            raise DataError(
                f"models.{self.name}: {error}; the request was for model {settings.model!r} "
                f"with the key in the environment variable {settings.key_variable}"
            ) from None

    async def _answer(self, prompts: Sequence[Prompt], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(prompts)
        indices = iter(range(len(prompts)))

        async def work(client: Client) -> None:
            for index in indices:  # shared: each worker takes the next prompt
                outcome = await self._ask(client, prompts[index])
                outcomes[index] = outcome
                on_outcome(outcome)

        async with Client(self._client, self._context.cache) as client:
            workers = [asyncio.create_task(work(client)) for _ in range(self._settings.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return [outcome for outcome in outcomes if outcome is not None]

    async def _ask(self, client: Client, prompt: Prompt) -> Outcome:
        if late := self._context.out_of_time():
            return late
        own_count = self.num_prompt_tokens(prompt)
        try:
            async with asyncio.timeout(self._context.seconds_left()):
                reply = await client.ask(self._body(prompt), own_count + prompt.max_new_tokens)
        except TimeoutError:
            return NoAnswer(
                "out_of_time", "max_seconds was used up before the answer came; run the same command again to continue"
            )
        except Dropped as dropped:
            return NoAnswer(dropped.reason, dropped.detail)
        return Answer(
            response=self._response(reply),
            reasoning_chars=len(reply.reasoning),
            finish_reason=reply.finish,
            prompt_tokens=reply.prompt_tokens or own_count,
            new_tokens=reply.completion_tokens or self._context.tokenizer.count(reply.reasoning + reply.answer),
        )

    def _response(self, reply: Reply) -> str:
        """The answer for the graders; they must see that a thinking was opened, so that a cut one is not graded."""
        if reply.reasoning or reply.thinking_split:
            return reply.answer
        return TEMPLATES[self._settings.template].generation_prefix + reply.answer

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            "messages": list(prompt.messages),
            "max_tokens": prompt.max_new_tokens,
            "temperature": settings.temperature,
            "seed": self._context.seed + prompt.repeat,
            "stream": False,
        }
        body |= {name: getattr(settings, name) for name in ("top_p", "top_k") if getattr(settings, name) is not None}
        return body | TEMPLATES[settings.template].request_fields(settings.enable_thinking)
