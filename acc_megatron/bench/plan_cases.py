"""The small training runs whose steps `bench plan` predicts and measures."""

from dataclasses import dataclass

SEQ_LENGTH_TOKENS = 1024
RECIPE = f"""
name = "bench_plan"
[model]
vocab_size = 2048
hidden_size = 128
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 32
num_experts = 8
num_experts_per_tok = 2
moe_intermediate_size = 96
max_position_embeddings = {SEQ_LENGTH_TOKENS}
[data]
path = "unset"
seq_length_tokens = {SEQ_LENGTH_TOKENS}
[optimizer]
learning_rate = 1e-4
min_learning_rate = 1e-5
[train]
run_dir = "unset"
global_batch_rows = 4
epochs = 100
"""
SUPERVISED_SHARE = 0.05
LONG = (SEQ_LENGTH_TOKENS,)
SHORT = (SEQ_LENGTH_TOKENS // 8,) * 8


@dataclass(frozen=True, slots=True)
class Case:
    """A run: processes, lengths of the documents in a row, and changes of the recipe."""

    name: str
    world: int
    documents_tokens: tuple[int, ...]
    overrides: tuple[str, ...] = ()


FULL = "memory.recompute=full"
CASES = [
    Case("long document", 1, LONG),
    Case("short documents", 1, SHORT),
    Case("long document, full recompute", 1, LONG, (FULL,)),
    Case("short documents, full recompute, 4 layers", 1, SHORT, (FULL, "model.num_hidden_layers=4")),
    Case("DP2, long document", 2, LONG),
    Case("EP2, short documents", 2, SHORT, ("parallel.expert=2",)),
    Case("TP2, long document, full recompute", 2, LONG, ("parallel.tensor=2", FULL)),
    Case("DP4 EP2, long document", 4, LONG, ("parallel.expert=2",)),
    Case("EP4, short documents, full recompute", 4, SHORT, ("parallel.expert=4", FULL)),
    Case("TP2 DP2, long document", 4, LONG, ("parallel.tensor=2",)),
]
