"""How far each precision's losses drift from float32 and bfloat16, in one process on the same data and weights.

PYTHONPATH=tests python -m support.precision_drift        prints the table of 50 steps (about 3 minutes on 2 cores)
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from support.layout_cases import Case
from support.layout_matrix import Result, run_cases

PRECISIONS = ("float32", "bfloat16", "fp8_delayed", "fp8_current", "fp8_blockwise", "fp8_mxfp8")
NUM_STEPS = 50
# every matrix has several blocks of 32; embeddings are tied because the vocabulary takes most of the time
MODEL = {
    "vocab_size": 151_936,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "moe_intermediate_size": 32,
    "tie_word_embeddings": True,
}
ADAM = (
    "optimizer.kind=adamw",
    "optimizer.learning_rate=3e-3",
    "optimizer.min_learning_rate=3e-4",
    "optimizer.clip_grad_norm=1.0",
)


def losses_of(recipe: Path, case: Case, _: Result | None) -> Result:
    """Train the number of steps of a case, which is named `precision/steps`."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.compatibility import check_job
    from acc_megatron.config import load_config
    from acc_megatron.training.resume import restore
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    precision, steps = case.name.split("/")[:2]
    config = load_config(recipe, [*ADAM, f"train.precision={precision}", *case.overrides])
    check_job(config, case.world)
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        return Result(losses=[train_step(trainer).loss for _ in range(int(steps))])


def make_drift_recipe(folder: Path, steps: int) -> Path:
    """Write a recipe with new rows of random words at every step, so that the loss ends near log(12), not at 0."""
    from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
    from support.make_inputs import make_recipe, write_triples

    triples = write_triples(folder / "many.jsonl", [360 - 7 * (n % 5) for n in range(4 * steps)], answer_words=40)
    convert([triples], folder / "many", ConvertSettings())
    return make_recipe(folder, dataset=folder / "many", **MODEL)


def curves(recipe: Path, steps: int, precisions: Sequence[str] = PRECISIONS) -> dict[str, list[float]]:
    """Return the losses of each precision, all from the same weights."""
    cases = [Case(f"{precision}/{steps}", 1) for precision in precisions]
    results = run_cases(recipe, cases, None, losses_of)
    return {precision: results[f"{precision}/{steps}"].losses for precision in precisions}


def drift(losses: list[float], reference: list[float]) -> tuple[float, float]:
    """Return the mean over the steps and the largest of |loss - reference| / reference."""
    each = [abs(a - b) / b for a, b in zip(losses, reference, strict=True)]
    return sum(each) / len(each), max(each)


def main() -> None:
    """Print the table of drifts as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        found = curves(make_drift_recipe(Path(folder), NUM_STEPS), NUM_STEPS)
    print(f"| precision | loss at step 1 | at step {NUM_STEPS} | drift from float32: mean | largest ", end="")
    print("| from bfloat16: mean | largest |\n|---|---|---|---|---|---|---|")
    for precision, losses in found.items():
        drifts = [f"{100 * part:.2f} %" for name in PRECISIONS[:2] for part in drift(losses, found[name])]
        print(f"| {precision} | {losses[0]:.4f} | {losses[-1]:.4f} | {' | '.join(drifts)} |")


if __name__ == "__main__":
    main()
