"""The formula for parameters against the model that training builds, as one rank of many."""

import json
import sys

from commands import run_command

CODE = """
import json
from pathlib import Path
from acc_megatron.config import load_config
from acc_megatron.layout import build_layout
from acc_megatron.plan.parameters import stage_parameters
from acc_megatron.plan.real_model import built_parameters

LAYOUTS = {
    "recipe": (64, []),
    "1,024 ranks": (1024, ["parallel.context=32"]),
    "stages of chunks": (64, ["parallel.pipeline=4", "parallel.virtual_pipeline=3", "parallel.context=1"]),
    "expert shards": (32, ["parallel.tensor=4", "parallel.expert_tensor=2", "parallel.expert=16"]),
    "tied": (16, ["model.tie_word_embeddings=true"]),
}
same = {}
for name, (world, overrides) in LAYOUTS.items():
    config = load_config(Path("examples/qwen3_30b_a3b_128k_h100.toml"), overrides)
    layout = build_layout(config.parallel, world)
    formula = [stage_parameters(config.model, layout, stage) for stage in range(layout.pipeline)]
    same[name] = built_parameters(config, layout) == formula
print(json.dumps(same))
"""


def test_the_formula_counts_the_parameters_of_the_model_that_training_builds() -> None:
    done = run_command([sys.executable, "-c", CODE])
    assert done.returncode == 0, done.stderr[-2000:]
    same = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(same) == 5 and all(same.values()), same
