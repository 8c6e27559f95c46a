"""A registry finds implementations by name and refuses unknown names."""

import pytest

from acc_megatron.common.registry import Registry
from acc_megatron.errors import ConfigError


def test_an_unknown_name_is_refused_with_the_setting_and_the_known_names() -> None:
    registry = Registry("optimizer.kind", {"adamw": 1, "sgd": 2})
    assert registry["sgd"] == 2 and "lion" not in registry
    with pytest.raises(ConfigError, match=r"optimizer\.kind must be one of 'adamw', 'sgd', got 'lion'"):
        registry["lion"]
