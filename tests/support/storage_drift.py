"""How far the losses of each way of storing the optimizer's state drift from float32 state.

PYTHONPATH=tests python -m support.storage_drift          prints the table of 50 steps
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from support.layout_cases import Case
from support.layout_matrix import run_cases
from support.precision_drift import NUM_STEPS, drift, losses_of, make_drift_recipe

REFERENCE = "float32"
STORED = {
    REFERENCE: "",
    "master_weights = remainders": "master_weights=remainders",
    "moments = bfloat16": "moments=bfloat16",
    "moments = fp8": "moments=fp8",
    "gradients = bfloat16": "gradients=bfloat16",
    "master_weights = float16": "master_weights=float16",
    "bfloat16, gradients = bfloat16, remainders": "moments=bfloat16 gradients=bfloat16 master_weights=remainders",
    "fp8, gradients = bfloat16, float16": "moments=fp8 gradients=bfloat16 master_weights=float16",
}


def curves(recipe: Path, steps: int, names: Sequence[str] = tuple(STORED)) -> dict[str, list[float]]:
    """Return the losses of each storage, all from the same weights, in bfloat16."""
    sharded = "parallel.distributed_optimizer=true"
    cases = [
        Case(f"bfloat16/{steps}/{name}", 1, (sharded, *(f"optimizer.{key}" for key in STORED[name].split())))
        for name in names
    ]
    results = run_cases(recipe, cases, None, losses_of)
    return {name: results[f"bfloat16/{steps}/{name}"].losses for name in names}


def main() -> None:
    """Print the table of drifts as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        found = curves(make_drift_recipe(Path(folder), NUM_STEPS), NUM_STEPS)
    print(f"| optimizer | loss at step 1 | at step {NUM_STEPS} | drift: mean | largest |\n|---|---|---|---|---|")
    for name, losses in found.items():
        mean, largest = drift(losses, found[REFERENCE])
        print(f"| {name} | {losses[0]:.4f} | {losses[-1]:.4f} | {100 * mean:.2f} % | {100 * largest:.2f} % |")


if __name__ == "__main__":
    main()
