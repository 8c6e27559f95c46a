"""Runs that are written as one text: ReAct, and queries with documents in tags (tagged_run.py)."""

import re
from typing import Any

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Transcript
from acc_megatron.data_tools.sources.formats.message_log import Message
from acc_megatron.data_tools.sources.formats.message_steps import called_tools, transcript_of_messages
from acc_megatron.data_tools.sources.formats.message_turns import turns_of_messages
from acc_megatron.data_tools.sources.formats.tagged_run import REPLY_MARKS, messages_of_tagged_run, tags_of

TEXT_KEYS = (
    "full_output", "traj", "trajectory", "output", "response", "completion", "generated_text", "prompt", "text",
    "scratchpad", "sequences_str", "solution_str", "generation", "rollout",
)  # fmt: skip
_ACTION = re.compile(r"^Action(?: \d{1,4})?:", re.MULTILINE)
_OBSERVATION = re.compile(r"^Observation(?: (\d{1,4}))?:[ \t]*", re.MULTILINE)
_NEXT = r"^(?:(?:Thought|Action|Final Answer)(?: \d{1,4})?|[A-Z]\w{1,30} %s):"
# a question of ReAct, after its demonstrations, is followed by a thought or an action, or by a label of other steps
_REACT_QUESTION = re.compile(
    r"^(?:Question|Claim):[ \t]*([^\n]{1,4000})\n\s{0,80}(?=(?:Thought|Action)(?: \d{1,4})?:|[A-Z]\w{1,30} 1:)",
    re.MULTILINE,
)
_INSTRUCTION, _RESPONSE = "### Instruction:\n", "### Response:\n"
_USER_MARKS = ("<|im_start|>user\n", "<|start_header_id|>user<|end_header_id|>\n")
_END_MARKS = re.compile(r"<\|(?:im_end|eot_id)\|>")
_TASK_MARK, _QUESTION_MARK = "Answer the given question", "Question:"


class RunText(LogFormat):
    """A run in one string, first of the keys TEXT_KEYS; the question is the row's `question`, or is in the text."""

    name = "text of a run"

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether a text contains an action with its observation, or a query with its documents in tags."""
        return _text(value) is not None

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """The steps of the text. Raises Dropped('malformed')."""
        return transcript_of_messages(_messages(value), fences)

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The question, the texts of the agent with their calls, and the outputs."""
        _, run = _question_and_run(_text(value) or "")
        question = Turn(role="user", text=trajectory.question)
        return [question, *turns_of_messages([{"role": "user", "content": ""}, *_messages_of(run)])[1:]]

    def tool_names(self, value: dict[str, Any]) -> set[str]:
        """The names of the tools that the text calls."""
        return called_tools(_messages(value))


def is_answer_text(value: dict[str, Any]) -> bool:
    """Whether a row's run is one text that thinks and answers, also without a query."""
    text = _text(value)
    return text is not None and _is_answer(text)


def _text(value: dict[str, Any]) -> str | None:
    texts = [value[key] for key in (*TEXT_KEYS, *value) if isinstance(value.get(key), str)]
    run = next((text for text in texts if _is_react(text) or tags_of(text)), None)
    return run or next((text for text in texts if _is_answer(text)), None)


def _is_react(text: str) -> bool:
    action = _ACTION.search(text)
    return action is not None and _OBSERVATION.search(text, action.end()) is not None


def _is_answer(text: str) -> bool:
    return "</answer>" in text.partition("</think>")[2]


def _messages(value: dict[str, Any]) -> list[Message]:
    question, run = _question_and_run(_text(value) or "")
    own = value.get("question")
    prompt = own if isinstance(own, str) and own.strip() else question or _question_of_prompt(value)
    return [{"role": "user", "content": prompt}, *_messages_of(run)]


def _question_of_prompt(value: dict[str, Any]) -> str:
    """The question of a run whose row keeps the prompt, or Alpaca's `instruction`, under its own key; '' if none."""
    prompts = [value[key] for key in ("instruction", "input", "prompt") if isinstance(value.get(key), str)]
    found = next((question for prompt in prompts if (question := _question_and_run(prompt)[0])), "")
    return found or ("\n".join(filter(None, prompts)) if isinstance(value.get("instruction"), str) else "")


def _messages_of(run: str) -> list[Message]:
    return messages_of_tagged_run(run) if tags_of(run) else _messages_of_react(run)


def _messages_of_react(run: str) -> list[Message]:
    """Thoughts with an action, each followed by its observation; the calls stay in the text."""
    messages: list[Message] = []
    position = 0
    while observation := _OBSERVATION.search(run, position):
        number = int(observation[1] or -1) + 1  # of the next step, whose labels can be any words ("Plan 2:")
        following = re.compile(_NEXT % number, re.MULTILINE).search(run, observation.end())
        end = following.start() if following else len(run)
        messages.append({"role": "assistant", "content": run[position : observation.start()].strip()})
        messages.append({"role": "tool", "content": run[observation.end() : end].strip()})
        position = end
    rest = run[position:].strip()
    return [*messages, {"role": "assistant", "content": rest}] if rest else messages


def _question_and_run(text: str) -> tuple[str, str]:
    """The question in a text ('' if none) and the text of the agent after it, without demonstrations."""
    before, mark, run = text.partition(_RESPONSE)
    if mark:
        return before.rpartition(_INSTRUCTION)[2].strip(), run
    if questions := list(_REACT_QUESTION.finditer(text)):
        return questions[-1][1].strip(), text[questions[-1].end() :]
    prompt, run = _prompt_and_reply(text)
    if _TASK_MARK in text[:2000] or "<search>" in prompt:
        _, mark, rest = (prompt or text).partition(_QUESTION_MARK)
        question, _, after = rest.partition("\n")
        return question.removesuffix("<|im_end|>").strip(), run if prompt else after
    asked = [part for mark in _USER_MARKS for part in prompt.split(mark)[1:]]
    return _END_MARKS.split(asked[-1])[0].strip() if asked else "", run


def _prompt_and_reply(text: str) -> tuple[str, str]:
    """The prompt in the markup of a chat template ('' if none), and the text after it."""
    if text.lstrip().startswith("<|"):
        for mark in REPLY_MARKS:
            prompt, found, run = text.partition(mark)
            if found:
                return prompt, run
    return "", text
