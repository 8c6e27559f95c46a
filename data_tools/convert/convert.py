"""Convert triples to a dataset folder, shard by shard; each shard depends only on its slice of the input.

A killed run keeps its finished shards, and the next run of the same command makes the others. The bytes of the dataset
depend on the input and the settings, not on the number of workers or machines, the engine, kills, or input paths.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from acc_megatron import __version__
from acc_megatron.common.folder_lock import folder_lock
from acc_megatron.common.output_folder import resolve_output
from acc_megatron.data_tools.convert.dataset_folder import check_free_or_dataset
from acc_megatron.data_tools.convert.input_rows import input_files
from acc_megatron.data_tools.convert.manifest import ConversionRecord, DatasetManifest, InputEntry
from acc_megatron.data_tools.convert.merge import publish
from acc_megatron.data_tools.convert.shards import ConvertSettings, ShardTask, make_shard, tokenizer_on
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.data_tools.rows.row_files import expanded
from acc_megatron.data_tools.sharding.row_ranges import row_ranges
from acc_megatron.data_tools.sharding.work_folder import (
    InputFile,
    in_use,
    make_part,
    make_shards,
    open_work_folder,
    shard_folders,
)
from acc_megatron.data_tools.sharding.worker_processes import Runner, in_processes
from acc_megatron.data_tools.tokenizer.gigatoken_engine import ENGINES
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import ConfigError, DataError

ROWS_PER_SHARD = 256
MAX_WEIGHT = 100


def convert(
    inputs: list[Path],
    out: Path,
    settings: ConvertSettings,
    *,
    num_workers: int = 1,
    max_bad_share: float = 0.01,
    engine: str = "auto",
    runner: Runner | None = None,
    weights: Mapping[Path, float] | None = None,
) -> DatasetManifest:
    """Convert triples, chats or tokenized rows into the dataset folder `out`; returns its manifest.

    Rows that break a rule are dropped with a reason. Rows that cannot be read, or have an unknown shape, are
    quarantined; more than `max_bad_share` of them raise TooManyBadRows. A `runner` replaces the `num_workers` local
    processes. `weights` says for some of the `inputs` how often their rows are used (see `prepare`). Raises DataError
    for unusable inputs, ConfigError for an unknown template or an invalid weight.
    """
    conversion = prepare(inputs, out, settings, engine=engine, weights=weights)
    with folder_lock(conversion.work) as is_locked:
        if not is_locked:
            raise in_use(conversion.out)
        runner = runner or in_processes(num_workers)
        make_shards("convert", conversion.tasks, make_shard, runner, conversion.inputs)
        return publish(conversion.work, conversion.out, max_bad_share=max_bad_share)


def convert_part(
    inputs: list[Path],
    out: Path,
    settings: ConvertSettings,
    *,
    part: tuple[int, int],
    num_workers: int = 1,
    engine: str = "auto",
    weights: Mapping[Path, float] | None = None,
) -> dict[str, int]:
    """Make every n-th shard of `out`, starting with the i-th (`part` = (i, n), i from 0), for a later `merge`.

    Parts may run on any machines that share the folder of `out`. Returns how many shards this part has, and how many
    there are in total.
    """
    conversion = prepare(inputs, out, settings, engine=engine, weights=weights)

    def make(mine: list[ShardTask]) -> None:
        make_shards("convert", mine, make_shard, in_processes(num_workers), conversion.inputs)

    return make_part(part, conversion.tasks, conversion.work, conversion.out, make)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What is to be made: the dataset folder `out`, and shards that are collected in the folder `work` until then."""

    out: Path
    work: Path
    tasks: list[ShardTask]
    inputs: list[InputFile]


def prepare(
    inputs: list[Path],
    out: Path,
    settings: ConvertSettings,
    *,
    engine: str,
    weights: Mapping[Path, float] | None = None,
) -> Conversion:
    """Check the settings, divide the input into shards, and record for `merge` what it needs in the work folder.

    With weight 2.5, each row of an input is used twice, and every second row a third time; see `num_copies`.
    """
    out = resolve_output(out)
    template = TEMPLATES[settings.template]
    if engine not in ENGINES:
        raise DataError(f"unknown engine {engine!r}; the engines are {', '.join(ENGINES)}")
    check_free_or_dataset(out)
    for folder in expanded(inputs):
        if folder.is_dir() and out.is_relative_to(folder.resolve()):
            raise DataError(f"--out {out} is inside the input folder {folder}: give a folder outside of it")
    tokenizer = tokenizer_on(settings.tokenizer, engine)
    if missing := [name for name in template.control_tokens if name not in tokenizer.control]:
        raise DataError(f"tokenizer {tokenizer.name} lacks {', '.join(missing)}, which template {template.name} needs")
    found = _weighted_files(inputs, weights or {})
    for path in (out, *(path for path, _ in found)):
        if not _is_utf8(str(path)):
            raise DataError(f"the name {str(path)!a} is not valid UTF-8, which a manifest requires: rename it")
    files = [(InputFile.at(path), weight) for path, weight in found]
    ranges = [(rows, weight) for file, weight in files for rows in row_ranges(file.path, ROWS_PER_SHARD)]
    record = _record(settings, tokenizer, [_entry(*file) for file in files], num_shards=len(ranges))
    work = open_work_folder(out, record)
    folders = shard_folders(work, len(ranges))
    tasks = [
        ShardTask(rows, settings, folder, engine, weight)
        for folder, (rows, weight) in zip(folders, ranges, strict=True)
    ]
    return Conversion(out=out, work=work, tasks=tasks, inputs=[file for file, _ in files])


def _weighted_files(inputs: list[Path], weights: Mapping[Path, float]) -> list[tuple[Path, float]]:
    """The files of the inputs, each with the weight of its input. Raises ConfigError for an invalid weight."""
    for name, weight in weights.items():
        if name not in inputs:
            raise ConfigError(f"--weight names {name}, not an input; the inputs are {', '.join(map(str, inputs))}")
        if not 0 < weight <= MAX_WEIGHT:
            raise ConfigError(f"the weight of {name} must be above 0 and at most {MAX_WEIGHT}, got {weight:g}")
    return [(file, weights.get(given, 1.0)) for given in inputs for file in input_files([given])]


def _entry(file: InputFile, weight: float) -> InputEntry:
    """The file in a manifest; a weight of 1 is left out."""
    entry: InputEntry = {"name": file.path.name, "bytes": file.stamp[0], "sha256": file.sha256}
    return entry if weight == 1 else {**entry, "weight": weight}


def _is_utf8(text: str) -> bool:
    """Whether a path is valid UTF-8; Python represents other bytes as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _record(
    settings: ConvertSettings, tokenizer: Tokenizer, inputs: list[InputEntry], *, num_shards: int
) -> ConversionRecord:
    return {
        "code_version": __version__,
        "settings": asdict(settings),
        "tokenizer": {
            "name": tokenizer.name,
            "sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
            "pad_id": tokenizer.control["<|endoftext|>"],
        },
        "inputs": inputs,
        "shards": num_shards,
    }
