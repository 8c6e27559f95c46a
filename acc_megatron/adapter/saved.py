"""Every tensor of an adapter: its name in a PEFT folder, place in a checkpoint, and shape; does not import torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from acc_megatron.adapter.parts import part_of

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """One tensor of an adapter."""

    peft_name: str
    key: str  # in a checkpoint
    expert: int | None  # its place in the first dim of the checkpoint's tensor
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """What an adapter trains in a model; `shapes` are those of the base's Hugging Face tensors."""

    shapes: Shapes
    rank: int
    targets: frozenset[str]
    trained: frozenset[str]

    def tensors(self) -> Iterator[SavedTensor]:
        """Yield all tensors in the order of the base's."""
        for hf_name in self.shapes:
            part = part_of(hf_name)
            if part in self.targets:
                yield from self.factors(hf_name)
            elif part in self.trained:
                yield SavedTensor(f"base_model.model.{hf_name}", f"adapter.{hf_name}", None, self.shapes[hf_name])

    def factors(self, hf_name: str) -> tuple[SavedTensor, SavedTensor]:
        """Return A `[rank, in]` and B `[out, rank]` of one matrix `[out, in]`; for the embedding, of its transpose."""
        module, (out, inside) = hf_name.removesuffix(".weight"), self.shapes[hf_name]
        names = (f"{module}.lora_A.weight", f"{module}.lora_B.weight")
        if part_of(hf_name) == "embeddings":
            out, inside = inside, out
            names = (f"{module}.lora_embedding_A", f"{module}.lora_embedding_B")
        layer, is_expert, rest = module.partition(".experts.")
        number, _, leaf = rest.rpartition(".")
        key = f"{layer}.experts.{leaf}" if is_expert else module
        first, second = (f"adapter.{key}.lora_{which}" for which in "AB")
        expert = int(number) if is_expert else None
        return (
            SavedTensor(f"base_model.model.{names[0]}", first, expert, (self.rank, inside)),
            SavedTensor(f"base_model.model.{names[1]}", second, expert, (out, self.rank)),
        )
