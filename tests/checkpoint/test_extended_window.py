"""A model with a short window is trained on longer documents, and its export has the long window."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.make_inputs import TINY_DENSE, write_recipe
from support.run_processes import import_hf_folder, start

SHORT = {"max_position_embeddings": 128}


@pytest.mark.parametrize("rope_key", [pytest.param("rope_scaling", marks=pytest.mark.slow), "rope_parameters"])
def test_a_recipe_may_add_yarn_to_its_initial_weights_and_the_export_has_it(
    rope_key: str, dataset: Path, make_hf_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoConfig

    hf = make_hf_folder(tmp_path / "hf", family="qwen3", **SHORT)
    if rope_key == "rope_scaling":  # as transformers 4 writes it
        config = json.loads((hf / "config.json").read_text())
        del config["rope_parameters"]
        (hf / "config.json").write_text(json.dumps(config | {"rope_theta": 1e6, "rope_scaling": None}))
    import_hf_folder(hf, tmp_path / "checkpoint")
    model: dict[str, Any] = TINY_DENSE | SHORT
    recipe = write_recipe(
        tmp_path / "recipe.toml",
        model=model,
        dataset=dataset,
        checkpoint=tmp_path / "checkpoint",
        batch_rows=2,
        epochs=1,
    )
    scaling = ["model.rope_scaling.factor=4.0", "model.rope_scaling.original_max_position_embeddings=128"]
    arguments = ["train", str(recipe), *scaling, f"train.run_dir={tmp_path / 'run'}", "train.max_steps=1"]
    run = start(tmp_path / "train", arguments)
    assert run.wait() == [0], run.error_output()[-2000:]
    assert "model.rope_scaling = {'rope_type': 'yarn', 'factor': 4.0" in run.error_output()
    exported = start(tmp_path / "logs", ["export", str(tmp_path / "run"), "--out", str(tmp_path / "export")])
    assert exported.wait() == [0], exported.error_output()[-2000:]
    found = AutoConfig.from_pretrained(tmp_path / "export")
    assert found.max_position_embeddings == 512
    rope = found.rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("yarn", 4.0, 128)
    assert rope["rope_theta"] == 1e6
