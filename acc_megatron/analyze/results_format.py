"""The layouts of attention.json, routing.json and overlap.json."""

from typing import NotRequired, TypedDict


class CheckpointSource(TypedDict):
    """Where a checkpoint is; `trained_tokens` is steps x rows x row length, padding included, or null if unknown."""

    path: str
    trained_tokens: int | None


class TaskDocuments(TypedDict):
    """The documents of a task that were used: numbers, how many they were drawn from, how many were too long."""

    documents: list[int]
    num_documents: int
    left_out_for_length: int


class AttentionTask(TaskDocuments):
    """A task with the range of its bins and the distance from which attention counts as long-range."""

    span_tokens: int
    long_range_tokens: int


class LayerAttention(TypedDict):
    """One layer: means by head over queries; the long-range values are null if no pair is that far apart."""

    distance_tokens: list[float]
    histogram: list[list[float]]
    long_range_entropy_nats: list[float] | None
    long_range_mass: list[float] | None
    num_queries: int
    num_long: int


class AttentionChange(TypedDict):
    """Change of the mean distance by layer, and the layers that changed most, first the largest."""

    by_layer_tokens: list[float]
    most_changed_layers: list[int]


class AttentionResult(TypedDict):
    """attention.json; `attention` is by checkpoint, task and layer, `changes` by checkpoint and task."""

    checkpoints: dict[str, CheckpointSource]
    tasks: dict[str, AttentionTask]
    attention: dict[str, dict[str, list[LayerAttention]]]
    changes: dict[str, dict[str, AttentionChange]]


class LayerRouting(TypedDict):
    """One layer: each expert's share of the routed tokens, and the number of these."""

    frequency: list[float]
    routed_tokens: int


class ExpertChange(TypedDict):
    """One expert's share before and after."""

    expert: int
    before: float
    after: float


class RoutingChange(TypedDict):
    """Total variation by layer, the most changed layers, and in each its most changed experts."""

    by_layer: list[float]
    most_changed_layers: list[int]
    most_changed_experts: dict[int, list[ExpertChange]]


class RoutingResult(TypedDict):
    """routing.json; `task_divergence_bits` is by checkpoint, pair of tasks and layer."""

    checkpoints: dict[str, CheckpointSource]
    tasks: dict[str, TaskDocuments]
    routing: dict[str, dict[str, list[LayerRouting]]]
    changes: dict[str, dict[str, RoutingChange]]
    task_divergence_bits: dict[str, dict[str, list[float]]]


class SharedRuns(TypedDict):
    """A question and the share of its word runs that the training text contains."""

    place: str
    share: float


class NgramScores(TypedDict):
    """Questions that share a run of words with training text, the mean share, and the questions that share most."""

    contaminated: int
    mean_share: float
    worst: list[SharedRuns]


class NearestQuestion(TypedDict):
    """A benchmark question and the nearest training question, 200 characters of each."""

    place: str
    cosine: float
    question: str
    training_question: str


class EmbeddingScores(TypedDict):
    """Similarity of a benchmark's questions to the training questions; the AUC is null for too few questions."""

    embedded: int
    distinct: int
    contaminated: int
    mean_nearest_cosine: float
    separability_auc: float | None
    nearest: list[NearestQuestion]


class BenchmarkOverlap(TypedDict):
    """One benchmark; `shorter` counts questions with fewer words than a run. Without an embedder: no `embeddings`."""

    file: str
    questions: int
    shorter: int
    ngrams_in_questions: NgramScores
    ngrams_in_other_text: NgramScores
    embeddings: NotRequired[EmbeddingScores]


class TrainingQuestions(TypedDict):
    """The training files and how many questions they contain; `embedded` of them were drawn."""

    files: list[str]
    questions: int
    embedded: NotRequired[int]


class OverlapSettings(TypedDict):
    """The settings of the comparison."""

    num_words: int
    similarity: float
    max_questions: int
    seed: int


class OverlapResult(TypedDict):
    """overlap.json without its map."""

    training: TrainingQuestions
    settings: OverlapSettings
    benchmarks: dict[str, BenchmarkOverlap]
