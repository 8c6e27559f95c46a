"""lm-eval's model interface over one of our models."""

import json
from collections.abc import Sequence
from typing import Any

from acc_megatron.errors import ConfigError
from acc_megatron.evaluate.benchmarks.question import strip_thinking
from acc_megatron.evaluate.models.prompt import Answer, Ask, Message, Outcome, Prompt


def chat_model(ask: Ask, name: str, max_new_tokens: int, repeat: int) -> Any:
    """An `lm_eval.api.model.LM` whose attribute `outcomes` maps each context to its outcome.

    The class is created in this function because its base class exists only with lm-eval installed.
    """
    from lm_eval.api.model import LM

    class ChatModel(LM):
        """Chat messages pass through lm-eval as JSON text. lm-eval's length and sampling settings are not used."""

        tokenizer_name = "chat"

        def __init__(self) -> None:
            super().__init__()
            self.outcomes: dict[str, Outcome] = {}

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            if not add_generation_prompt:
                raise ConfigError(
                    f"benchmarks.{name}: a task that writes the beginning of the answer cannot be asked as a chat"
                )
            return json.dumps(chat_history, ensure_ascii=False)

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            prompts, stops = [], []
            for number, request in enumerate(requests):
                context, settings = request.args
                messages: tuple[Message, ...] = tuple(
                    {"role": message["role"], "content": message["content"]} for message in json.loads(context)
                )
                prompt_id = f"{name}/{request.task_name}/{number}"
                prompts.append(Prompt(id=prompt_id, messages=messages, max_new_tokens=max_new_tokens, repeat=repeat))
                stops.append(settings.get("until") or [])
            outcomes = ask(prompts)
            self.outcomes |= {request.args[0]: outcome for request, outcome in zip(requests, outcomes, strict=True)}
            return [
                until(strip_thinking(outcome.response), stop) if isinstance(outcome, Answer) else ""
                for outcome, stop in zip(outcomes, stops, strict=True)
            ]

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            raise ConfigError(
                f"benchmarks.{name}: task {requests[0].task_name} compares likelihoods, which a chat model does not "
                "report; choose a generative task, such as gpqa_diamond_cot_zeroshot"
            )

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            self.loglikelihood(requests)
            return []

    return ChatModel()


def until(text: str, stops: Sequence[str] | str) -> str:
    """The text before the first of the stop strings."""
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0] if stop else text
    return text
