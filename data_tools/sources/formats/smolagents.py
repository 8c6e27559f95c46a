"""smolagents' memory: a list of steps, each with its output of the model, its calls and its observations."""

from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS, Message, MessageLog

_LOGS, _LAST = "Execution logs:", "Last output from code snippet:"
_STEP_KEYS = ("model_output", "observations", "step_number", "code_action")


class Smolagents(MessageLog):
    """Steps become an assistant message with calls, and a tool output; a code agent's call is its Python code."""

    name = "smolagents steps"
    item_keys = frozenset(_STEP_KEYS)
    keys = (*MESSAGE_KEYS, "steps")

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item has calls or observations of smolagents' steps."""
        return any("role" not in item and sum(key in item for key in (*_STEP_KEYS, "tool_calls")) > 1 for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """The steps as OpenAI messages; a step with a task is the user's, and plans are left out."""
        messages: list[Message] = []
        for item in items:
            if isinstance(item.get("task"), str):
                messages.append({"role": "user", "content": item["task"]})
            elif isinstance(item.get("system_prompt"), str):
                messages.append({"role": "system", "content": item["system_prompt"]})
            elif any(item.get(key) is not None for key in ("tool_calls", *_STEP_KEYS)):
                calls = item.get("tool_calls") or []
                content = text_of_parts(item.get("model_output"))
                messages.append(openai_message({"role": "assistant", "content": content, "tool_calls": calls}))
                if calls:
                    messages.append(openai_message({"role": "tool", "content": _output(item)}))
        return messages


def _output(item: Message) -> object:
    """What the tools returned, otherwise the error of the step."""
    error = item.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    observations = item.get("observations")
    if isinstance(observations, str) and observations.startswith(_LOGS):  # what the code of a code agent printed
        printed, _, last = observations.removeprefix(_LOGS).partition(_LAST)
        observations = printed.strip() or last.strip()
    return next((found for found in (observations, message, item.get("action_output")) if found), "")
