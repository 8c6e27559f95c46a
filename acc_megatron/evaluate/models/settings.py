"""The settings of one model, the table [models.NAME] of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.errors import ConfigError
from acc_megatron.evaluate.checks import check_at_least


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """One model: an OpenAI-compatible `endpoint` and the model's name there, or a local Hugging Face `folder`.

    A folder runs in transformers, one question at a time, or in a vLLM server that is started for the run. `template`
    says how prompts are rendered and whether they open the thinking. The key of an endpoint is read from the
    environment variable `key_variable` and is never written. Prices are per million tokens.
    """

    endpoint: str | None = None
    model: str | None = None
    folder: str | None = None
    engine: Literal["transformers", "vllm"] = "transformers"
    gpus: int = 1  # for vllm
    start_seconds: float = 1800.0  # for vllm: time limit until the server is ready
    window_tokens: int | None = None  # prompt and answer together; default: what the folder or the server states
    tokenizer: str | None = None  # qwen3 or a path; default: the folder's, or the run's for an endpoint
    template: str = "qwen3"
    enable_thinking: bool | None = None  # for endpoints whose chat template has this switch
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    price_input: float = 0.0
    price_output: float = 0.0
    key_variable: str = "ACC_API_KEY"
    concurrency: int = 16
    tries: int = 5
    timeout_seconds: float = 3600.0
    max_reply_bytes: int = 16 << 20

    def check(self, where: str, *, repeats: int) -> None:
        """Raise ConfigError for a value that cannot work; `where` names the table in the message."""
        if (self.endpoint is None) == (self.folder is None):
            raise ConfigError(f"{where}: give exactly one of endpoint and folder")
        if self.endpoint is not None and self.model is None:
            raise ConfigError(f"{where}: an endpoint needs model, the name of the model there")
        if self.folder is not None and not (Path(self.folder) / "config.json").is_file():
            raise ConfigError(f"{where}.folder: no Hugging Face model in {self.folder}: config.json is missing")
        if self.template not in TEMPLATES:
            raise ConfigError(f"{where}.template is {self.template!r}; the templates are {', '.join(TEMPLATES)}")
        if repeats > 1 and self.temperature == 0:
            raise ConfigError(f"{where}.temperature is 0 and repeats is {repeats}: every repeat would be the same")
        for name in ("gpus", "concurrency", "tries", "max_reply_bytes", "window_tokens", "top_k"):
            if getattr(self, name) is not None:
                check_at_least(f"{where}.{name}", getattr(self, name), 1)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"{where}.top_p is {self.top_p}; it must be above 0 and at most 1")
        for name in ("timeout_seconds", "start_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{where}.{name} is {getattr(self, name)}; it must be above 0")
        for name in ("temperature", "price_input", "price_output"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{where}.{name} is {getattr(self, name)}; it must be 0 or more")
