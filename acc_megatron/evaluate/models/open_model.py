"""Opens the model that a table [models.NAME] describes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from acc_megatron.common.answer_cache import AnswerCache
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer, load_tokenizer
from acc_megatron.evaluate.models.endpoint import EndpointModel
from acc_megatron.evaluate.models.local_folder import LocalModel, folder_config, folder_digest
from acc_megatron.evaluate.models.model import Model, ModelContext
from acc_megatron.evaluate.models.settings import ModelSettings
from acc_megatron.evaluate.models.vllm_server import serving


@contextmanager
def opened_model(
    name: str,
    settings: ModelSettings,
    run_tokenizer: Tokenizer,
    cache: AnswerCache,
    *,
    seed: int,
    deadline: float | None,
    out: Path,
    show: Callable[[str], None],
) -> Iterator[Model]:
    """The model, with a vLLM server that runs as long as the block if its engine is vllm."""
    tokenizer = run_tokenizer
    if settings.tokenizer is not None:
        tokenizer = load_tokenizer(settings.tokenizer)
    elif settings.folder is not None and (Path(settings.folder) / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(settings.folder)
    context = ModelContext(name=name, settings=settings, tokenizer=tokenizer, cache=cache, seed=seed, deadline=deadline)
    if settings.endpoint is not None:
        yield EndpointModel(context)
        return
    assert settings.folder is not None
    folder = Path(settings.folder)
    if settings.engine == "vllm":
        window = settings.window_tokens or folder_config(folder)["max_position_embeddings"]
        log = out / f"vllm-{quote(name, safe=' ')}.log"
        with serving(settings, name=name, log=log, show=show) as url:
            served = replace(settings, endpoint=url, model=name, window_tokens=window)
            yield EndpointModel(replace(context, settings=served), identity=folder_digest(folder))
    else:
        yield LocalModel(context)
