"""The numbers that the ACC paper (arXiv 2605.21850) reports, in percent, beside which ours stand.

MRCR and GraphWalks totals and their gains are the abstract's (68.3 and 77.5, +18.1 and +7.6); the rest is as cited by
readers of the paper, averages of 3 samples. MRCR is of 2 and 4 needles, its total over items.
"""

from collections.abc import Mapping

COLUMNS = (
    "MRCR", "2 needles", "4 needles", "GraphWalks", "parents", "BFS",
    "GPQA-Diamond", "MMLU-Pro", "AIME24", "AIME25", "IFEval",
)  # fmt: skip
PUBLISHED: dict[str, Mapping[str, float]] = {
    "paper: Qwen3-30B-A3B-Thinking": {
        "MRCR": 50.19, "2 needles": 61.84, "4 needles": 38.41, "GraphWalks": 69.92, "parents": 71.19, "BFS": 68.47,
        "GPQA-Diamond": 67.71, "MMLU-Pro": 74.50, "AIME24": 90.00, "AIME25": 86.67, "IFEval": 86.69,
    },
    "paper: with ACC": {
        "MRCR": 68.28, "2 needles": 76.90, "4 needles": 59.57, "GraphWalks": 77.51, "parents": 81.50, "BFS": 72.95,
        "GPQA-Diamond": 70.20, "MMLU-Pro": 76.00, "AIME24": 90.00, "AIME25": 90.00, "IFEval": 86.14,
    },
    "paper: Qwen3-235B-A22B-Thinking": {"MRCR": 67.51, "GraphWalks": 76.63},
}  # fmt: skip
# column -> kind, group and value (None: over all items), and the metric it is compared with
OWN: dict[str, tuple[str, tuple[str, str] | None, str]] = {
    "MRCR": ("mrcr", None, "score"),
    "2 needles": ("mrcr", ("n_needles", "2"), "score"),
    "4 needles": ("mrcr", ("n_needles", "4"), "score"),
    "GraphWalks": ("graphwalks", None, "f1"),
    "parents": ("graphwalks", ("problem_type", "parents"), "f1"),
    "BFS": ("graphwalks", ("problem_type", "bfs"), "f1"),
}
# column -> a task of lm-eval or a group of them, a pattern of its name, and metrics: the first that is there is taken
HARNESS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "GPQA-Diamond": ("task", "gpqa_diamond*", ("exact_match,flexible-extract", "exact_match")),
    "MMLU-Pro": ("task_group", "mmlu_pro", ("exact_match,custom-extract", "exact_match")),
    "AIME24": ("task", "aime24", ("exact_match",)),
    "AIME25": ("task", "aime25", ("exact_match",)),
    "IFEval": ("task", "ifeval", ("prompt_level_strict_acc",)),
}
