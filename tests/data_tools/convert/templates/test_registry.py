"""A registered template serves conversion and evaluation without any other change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.teacher_server import Teacher, send_json

from acc_megatron.common.answer_cache import AnswerCache, Budget
from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.data_tools.convert.templates.template import Writer
from acc_megatron.data_tools.convert.verify import verify
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError


class Plain:
    """A template without thinking, which opens every chat with a system turn of its own."""

    name = "plain"
    summary = "no thinking"
    control_tokens: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    generation_prefix = "Reply: "

    def write_turns(self, writer: Writer, turns: Any) -> None:
        writer.control("<|im_start|>").text("system\nNaïve.").control("<|im_end|>")
        for turn in turns:
            if turn.role == "assistant":
                self.write_generation_prompt(writer)
                writer.text(turn.text, supervised=turn.supervised)
            else:
                writer.control("<|im_start|>").text(turn.text)
            writer.control("<|im_end|>", supervised=turn.supervised)

    def write_generation_prompt(self, writer: Writer) -> None:
        writer.control("<|im_start|>").text("Reply: ")

    def request_fields(self, enable_thinking: bool | None) -> dict[str, Any]:
        return {"think": enable_thinking}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Plain:
    monkeypatch.setitem(TEMPLATES, "plain", template := Plain())
    return template


def test_a_registered_template_converts_triples(
    plain: Plain, tmp_path: Path, tokenizer: Tokenizer, triple_rows: list[dict[str, Any]], write_rows: Callable
) -> None:
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:3])
    manifest = convert([source], tmp_path / "out", ConvertSettings(template="plain"))
    assert manifest["settings"]["template"] == "plain" and verify(tmp_path / "out") == []
    dataset = open_dataset(tmp_path / "out")
    ids, mask = dataset.document(0)
    assert tokenizer.decode(ids).startswith("<|im_start|>system\nNaïve.<|im_end|><|im_start|>Please reason")
    assert tokenizer.decode(ids[mask == 1]) == f"{triple_rows[0]['answer']}<|im_end|>"
    evidence = dataset.samples["pieces"].to_pylist()[0][0]
    piece = ids[evidence["first_token"] : evidence["first_token"] + evidence["tokens"]]
    assert tokenizer.decode(piece).startswith("[Document 1] Evidence\n")


def test_a_registered_template_renders_prompts_of_an_evaluation(plain: Plain, tokenizer: Tokenizer) -> None:
    from acc_megatron.evaluate.models.chat_ids import chat_ids

    ids = chat_ids([{"role": "user", "content": "q"}], tokenizer, "plain")
    expected = "<|im_start|>system\nNaïve.<|im_end|><|im_start|>q<|im_end|><|im_start|>Reply: "
    assert tokenizer.decode(ids) == expected


def test_a_registered_template_decides_how_an_endpoint_is_asked_and_its_answer_read(
    plain: Plain, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from acc_megatron.evaluate.models.endpoint import EndpointModel
    from acc_megatron.evaluate.models.model import ModelContext
    from acc_megatron.evaluate.models.prompt import Answer, Prompt
    from acc_megatron.evaluate.models.settings import ModelSettings

    prompt = Prompt(id="1", messages=({"role": "user", "content": "q"},), max_new_tokens=8)
    bodies: list[dict[str, Any]] = []

    def behaviour(handler: Any, body: dict[str, Any], number: int) -> None:
        bodies.append(body)
        send_json(handler, {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]})

    with Teacher(behaviour) as server, AnswerCache(tmp_path / "cache", Budget()) as cache:
        settings = ModelSettings(
            endpoint=server.url, model="m", window_tokens=99, template="plain", enable_thinking=False
        )
        context = ModelContext(name="m", settings=settings, tokenizer=tokenizer, cache=cache, seed=0, deadline=None)
        (answer,) = EndpointModel(context).answer([prompt], lambda outcome: None)
    assert bodies[0]["think"] is False
    assert isinstance(answer, Answer) and answer.response == "Reply: yes"


def test_a_tokenizer_without_the_control_tokens_of_the_template_is_refused(
    plain: Plain, tmp_path: Path, triple_rows: list[dict[str, Any]], write_rows: Callable
) -> None:
    plain.control_tokens = ("<|im_start|>", "<|other|>")
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:1])
    with pytest.raises(DataError, match=r"tokenizer qwen3 lacks <\|other\|>, which template plain needs"):
        convert([source], tmp_path / "out", ConvertSettings(template="plain"))


def test_every_template_marks_exactly_what_a_model_generates(tokenizer: Tokenizer) -> None:
    """The supervised tokens follow the prompt directly, for every registered template."""
    from acc_megatron.data_tools.convert.render import prompt_ids, render_turns

    reply = Turn(role="assistant", text="a", reasoning="r", supervised=True)
    turns = (Turn(role="system", text="s"), Turn(role="user", text="q"))
    for template in TEMPLATES.values():
        rendered, prompt = render_turns((*turns, reply), tokenizer, template), prompt_ids(turns, tokenizer, template)
        assert rendered.ids[: len(prompt)].tolist() == prompt.tolist()
        assert rendered.num_prompt_tokens == len(prompt) == int(rendered.mask.argmax())
