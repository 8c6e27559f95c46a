"""Settings are typed and can be overridden; each mistake is reported by one line that says what to do."""

from pathlib import Path

import pytest
from support.commands import ROOT

from acc_megatron.config import Config, difference, load_config, to_dict
from acc_megatron.errors import ConfigError

TINY = ROOT / "examples" / "tiny_cpu.toml"
FULL = ROOT / "examples" / "qwen3_30b_a3b_128k_h100.toml"


def test_every_example_recipe_loads_and_divides_over_its_layout() -> None:
    from acc_megatron.compatibility.layout import check_divides
    from acc_megatron.mesh.layout import build_layout

    for path, world in ((TINY, 2), (FULL, 64)):
        config = load_config(path)
        assert config.name == path.stem
        check_divides(config, build_layout(config.parallel, world))


def test_the_30b_recipe_has_the_published_hyperparameters() -> None:
    config = load_config(FULL)
    assert config.data.seq_length_tokens == 131_072
    assert (config.train.global_batch_rows, config.train.epochs) == (16, 4)
    assert (config.optimizer.learning_rate, config.optimizer.min_learning_rate) == (1e-5, 1e-6)
    assert config.optimizer.warmup_fraction == 0.05


def test_overrides_are_typed_and_shown_as_a_difference_from_the_recipe() -> None:
    config = load_config(TINY, ["train.seed=7", "data.path=/some/where", "optimizer.learning_rate=1"])
    assert (config.train.seed, config.data.path, config.optimizer.learning_rate) == (7, "/some/where", 1.0)
    lines = difference(config, load_config(TINY))
    assert "train.seed = 7 (recipe: 0)" in lines and len(lines) == 3


def test_saved_settings_load_unchanged() -> None:
    from acc_megatron.config import from_dict

    config = load_config(TINY)
    assert from_dict(Config, to_dict(config), "here") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("parallel.context_paralel=2", "unknown key parallel.context_paralel; did you mean parallel.context?"),
        ("trian.seed=2", "unknown key trian; did you mean train?"),
        ("train.seed=abc", "train.seed must be int, got 'abc'"),
        ("train.seed=true", "train.seed must be int, got True"),
        ("loss.plan=maybe", "loss.plan must be one of 'auto', 'keep', 'recompute', got 'maybe'"),
        ("train.seed", "override 'train.seed' has no '='"),
        ("name.x=1", "'name' is a value, not a section"),
    ],
)
def test_a_wrong_override_is_reported_with_its_key_and_the_fix(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(TINY, [override])
    assert message in str(caught.value)


def test_a_missing_key_or_file_is_reported_by_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text(TINY.read_text().replace("hidden_size = 64\n", ""))
    with pytest.raises(ConfigError, match=r"model\.hidden_size is missing"):
        load_config(broken)
    with pytest.raises(ConfigError, match=r"no config file at .*absent\.toml"):
        load_config(tmp_path / "absent.toml")
    broken.write_text("x = [")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_config(broken)


def test_a_tilde_in_a_path_is_the_home_folder(recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(recipe, ["train.run_dir=~/run", "data.path=~/data", "train.init_from=~/checkpoint"])
    paths = (config.train.run_dir, config.data.path, config.train.init_from)
    assert paths == tuple(str(tmp_path / name) for name in ("run", "data", "checkpoint"))
