"""Compares the parameter formula of `plan` with the models that training builds; the body of a test process."""

import json
from pathlib import Path

RECIPE = Path(__file__).parent / "recipe_30b.toml"
LAYOUTS = {
    "recipe": (64, []),
    "1,024 ranks": (1024, ["parallel.context=32"]),
    "chunks per stage": (64, ["parallel.pipeline=4", "parallel.virtual_pipeline=3", "parallel.context=1"]),
    "expert tensor": (32, ["parallel.tensor=4", "parallel.expert_tensor=2", "parallel.expert=16"]),
    "tied": (16, ["model.tie_word_embeddings=true"]),
}


DENSE_RECIPE = Path(__file__).parents[2] / "examples" / "qwen3_0_6b_32k_h100.toml"
DENSE_LAYOUTS = {
    "dense, tied": (1, []),
    "dense, tied, TP2 PP2": (4, ["parallel.tensor=2", "parallel.pipeline=2"]),
    "dense, not tied, PP2 of 2 chunks": (
        2,
        ["parallel.pipeline=2", "parallel.virtual_pipeline=2", "model.tie_word_embeddings=false"],
    ),
}


def compare_parameters(out: Path) -> None:
    """Write to `out`, for each layout, whether the formula counts the parameters of the built model."""
    from acc_megatron.config import load_config
    from acc_megatron.mesh.layout import build_layout
    from acc_megatron.plan.parameters import stage_parameters
    from acc_megatron.plan.real_model import built_parameters

    equal = {}
    cases = [(RECIPE, *item) for item in LAYOUTS.items()] + [(DENSE_RECIPE, *item) for item in DENSE_LAYOUTS.items()]
    for recipe, name, (world, overrides) in cases:
        config = load_config(recipe, overrides)
        layout = build_layout(config.parallel, world)
        formula = [stage_parameters(config.model, layout, stage) for stage in range(layout.pipeline)]
        equal[name] = built_parameters(config, layout) == formula
    out.write_text(json.dumps(equal))
