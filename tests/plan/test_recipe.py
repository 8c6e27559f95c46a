"""`acc-megatron recipe`: every Qwen3 release is read, laid out within memory, and written as a recipe that trains."""

from pathlib import Path

import pytest
from support.official_configs import RELEASES, write_release

from acc_megatron.checkpoint.huggingface_config import read_model_config
from acc_megatron.compatibility import check_job
from acc_megatron.config import Config, RopeScaling, load_config
from acc_megatron.errors import CheckpointError, ConfigError
from acc_megatron.mesh.gpu_specs import find_machine
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.parameter_count import num_parameters
from acc_megatron.plan.recipe import Request, make_recipe


def recipe(folder: Path, name: str, *, gpus: int, tokens: int, machine: str = "h100", yarn: bool = False) -> Config:
    """The settings in the recipe that is written for a release."""
    request = Request(
        folder=folder / name if (folder / name).is_dir() else write_release(folder, name),
        num_gpus=gpus,
        seq_length_tokens=tokens,
        machine=find_machine(machine),
        yarn=yarn,
    )
    file = folder / "recipe.toml"
    file.write_text(make_recipe(request))
    config = load_config(file)
    check_job(config, gpus, has_gpu=True)
    return config


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_has_the_number_of_parameters_on_its_model_card(name: str, tmp_path: Path) -> None:
    release, model = RELEASES[name], read_model_config(write_release(tmp_path, name))
    total, embedding = num_parameters(model) / 1e9, model.vocab_size * model.hidden_size / 1e9
    assert total == pytest.approx(release.parameters, rel=0.03)
    without = total - embedding * (1 if model.tie_word_embeddings else 2)
    assert without == pytest.approx(release.without_embeddings, rel=0.03)
    if release.activated:
        active = model.num_hidden_layers * FAMILIES[model.family].active_layer_weights(model) / 1e9
        assert active + 2 * embedding == pytest.approx(release.activated, rel=0.03)
    assert model.window_tokens == release.config["max_position_embeddings"]
    assert model.rope_theta == release.config["rope_theta"]


def test_a_recipe_has_the_model_of_config_json_and_a_layout_of_all_gpus(tmp_path: Path) -> None:
    config = recipe(tmp_path, "Qwen3-0.6B", gpus=1, tokens=32_768)
    assert config.model == read_model_config(tmp_path / "Qwen3-0.6B")
    assert config.data.seq_length_tokens == 32_768 and config.train.precision == "bfloat16"
    config = recipe(tmp_path, "Qwen3-30B-A3B-Thinking-2507", gpus=16, tokens=131_072)
    assert config.model == read_model_config(tmp_path / "Qwen3-30B-A3B-Thinking-2507")
    assert config.model.rope_scaling is None and config.moe.load_balancing == "aux_loss"


def test_a_model_with_a_short_window_gets_a_long_one_only_on_request(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--seq-length 131072 exceeds the window of 40960 tokens: --yarn extends it"):
        recipe(tmp_path, "Qwen3-8B", gpus=16, tokens=131_072)
    config = recipe(tmp_path, "Qwen3-8B", gpus=16, tokens=131_072, yarn=True)
    # 32,768 positions were trained; the others of the 40,960 are room for an answer
    assert config.model.rope_scaling == RopeScaling(factor=4.0, original_max_position_embeddings=32_768)
    short = recipe(tmp_path, "Qwen3-8B", gpus=16, tokens=32_768, yarn=True)
    assert short.model.rope_scaling is None


def test_without_a_layout_that_fits_the_error_says_what_takes_the_memory(tmp_path: Path) -> None:
    message = (
        r"no layout of 1 H100 SXM fits: TP1 .* with recompute .* needs least, \d+ of 80 GB, of which .* use more GPUs"
    )
    with pytest.raises(ConfigError, match=message):
        recipe(tmp_path, "Qwen3-32B", gpus=1, tokens=16_384)


def test_a_model_of_another_kind_is_refused_by_its_key(tmp_path: Path) -> None:
    folder = write_release(tmp_path, "Qwen3-8B", use_sliding_window=True)
    request = Request(folder=folder, num_gpus=8, seq_length_tokens=32_768, machine=find_machine("h100"))
    with pytest.raises(CheckpointError, match=r"config\.json: use_sliding_window = True is not supported"):
        make_recipe(request)
