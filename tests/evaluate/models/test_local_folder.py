"""Models in local folders: greedy and sampled answers, stop tokens, other and damaged checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.eval_runs import start, tree
from support.make_inputs import QWEN_VOCAB_SIZE, make_hf_folder

from acc_megatron.errors import CheckpointError
from acc_megatron.evaluate.runner import evaluate
from acc_megatron.evaluate.settings import run_from_tree


def test_local_answers_are_the_greedy_continuation_of_the_rendered_prompt(tmp_path: Path, hf_dir: Path) -> None:
    """The reference uses neither a cache nor generate(): the argmax of a full forward pass for each token."""
    import torch
    from transformers import AutoModelForCausalLM

    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer
    from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS
    from acc_megatron.evaluate.models.chat_ids import chat_ids

    run = run_from_tree(tree({"m": {"folder": str(hf_dir)}}, limit=1), "x")
    (item,) = evaluate(run, tmp_path, show=print)["items"]
    qwen = load_tokenizer("qwen3")
    benchmark: Any = BENCHMARKS["graphwalks"]
    (question,), _ = benchmark.questions("walks", run.benchmarks["walks"], run.draw, qwen.count)
    model = AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.float32).eval()
    ids = chat_ids(question.messages, qwen).tolist()
    num_prompt = len(ids)
    with torch.inference_mode():
        for _ in range(5):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert item["answers"][0]["prompt_tokens"] == num_prompt
    assert item["answers"][0]["response"].startswith(qwen.decode(ids[num_prompt:]))


def test_another_checkpoint_in_the_same_folder_is_asked_anew(tmp_path: Path) -> None:
    answers = []
    for seed in (0, 1):
        folder = make_hf_folder(
            tmp_path / "model", seed=seed, num_hidden_layers=1, hidden_size=16, vocab_size=QWEN_VOCAB_SIZE
        )
        walks = {"kind": "graphwalks", "items": 1, "length_tokens": [700], "max_new_tokens": 6}
        results = start(tmp_path / "out", {"m": {"folder": str(folder)}}, benchmarks={"walks": walks})
        answers.append(results["items"][0]["answers"][0]["response"])
        assert results["requests"]["from_cache"] == 0
    assert answers[0] != answers[1]


def test_a_damaged_folder_is_an_error_instead_of_random_weights(tmp_path: Path, hf_dir: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "config.json").write_bytes((hf_dir / "config.json").read_bytes())
    models = {"m": {"folder": str(folder)}}
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        start(tmp_path / "out", models, limit=1)
    tensors = load_file(hf_dir / "model.safetensors")
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"missing keys, the first is .*{name}"):
        start(tmp_path / "out", models, limit=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 151_668}))
    with pytest.raises(CheckpointError, match=r"151668 token embeddings .* needs 151669"):
        start(tmp_path / "out", models)
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("stop", ["<|im_end|>", "<|endoftext|>"])
def test_an_answer_ends_before_its_stop_token_and_does_not_count_as_cut(stop: str, hf_dir: Path) -> None:
    import torch
    from transformers.modeling_outputs import CausalLMOutputWithPast

    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer
    from acc_megatron.evaluate.models.chat_ids import chat_ids
    from acc_megatron.evaluate.models.generate import Sampling, generate, load_model

    model, qwen = load_model(hf_dir), load_tokenizer("qwen3")
    ids = chat_ids([{"role": "user", "content": "Hi"}], qwen)
    fixed = [*qwen.encode("Done.").tolist(), qwen.control[stop], qwen.control["<|im_start|>"]]

    def forward(input_ids: torch.Tensor, **_: object) -> CausalLMOutputWithPast:
        """Logits that spell `fixed` for any prompt; the real generate() must stop inside it."""
        written.append(len(written))
        logits = torch.zeros(1, 1, 151_936)
        logits[0, 0, fixed[written[-1]]] = 1.0
        return CausalLMOutputWithPast(logits=logits)

    written: list[int] = []
    model.forward = forward
    made = generate(model, ids, qwen, 10, Sampling())
    assert (made.text, made.cut, made.num_new_tokens) == ("Done.", False, len(fixed) - 1)
    written.clear()
    made = generate(model, ids, qwen, 1, Sampling())
    assert (made.text, made.cut, made.num_new_tokens) == ("Done", True, 1)


def test_samples_of_a_local_model_depend_on_their_seed(hf_dir: Path) -> None:
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer
    from acc_megatron.evaluate.models.chat_ids import chat_ids
    from acc_megatron.evaluate.models.generate import Sampling, generate, load_model

    model, qwen = load_model(hf_dir), load_tokenizer("qwen3")
    ids = chat_ids([{"role": "user", "content": "Hi"}], qwen)
    texts = [generate(model, ids, qwen, 6, Sampling(temperature=1.0, seed=seed)).text for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    likeliest = [generate(model, ids, qwen, 6, Sampling(temperature=1.0, top_k=1, seed=seed)).text for seed in (0, 1)]
    assert likeliest == [generate(model, ids, qwen, 6, Sampling()).text] * 2
