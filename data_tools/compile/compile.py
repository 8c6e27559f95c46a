"""Compiles the trajectories in files into a folder of triples, with a recorded reason for every row left out.

The work is done in shards: each depends only on a slice of the input, and on the stock of added distractors. A killed
run keeps its finished shards. The bytes of the output do not depend on the number of workers or jobs, kills or engine.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from acc_megatron import __version__
from acc_megatron.common.folder_lock import folder_lock
from acc_megatron.common.output_folder import resolve_output
from acc_megatron.common.streams import located
from acc_megatron.data_tools.compile.inputs import Inputs, discover
from acc_megatron.data_tools.compile.judge import JudgeSettings, judge_open_answers
from acc_megatron.data_tools.compile.merge import CompileRecord, publish
from acc_megatron.data_tools.compile.near_duplicates import NearSettings
from acc_megatron.data_tools.compile.output import FORMAT, check_output_folder
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.compile.shards import CompileTask, ShardMaker
from acc_megatron.data_tools.compile.stock_shards import STOCK, LentTask, build_stock
from acc_megatron.data_tools.sharding.work_folder import (
    InputFile,
    in_use,
    make_part,
    make_shards,
    open_work_folder,
    shard_folders,
)
from acc_megatron.data_tools.sharding.worker_processes import in_processes
from acc_megatron.data_tools.sources.known_agents import check_agent
from acc_megatron.data_tools.sources.sql.table_text import TABLE_FORMATS
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError

ROWS_PER_SHARD = 512


def compile_inputs(
    inputs: list[Path],
    out: Path,
    *,
    agent: str,
    resources: list[Path],
    settings: CompileSettings,
    tokenizer: Tokenizer,
    max_bad_share: float = 0.01,
    near: NearSettings | None = None,
    with_messages: bool = False,
    num_workers: int = 1,
    judge: JudgeSettings | None = None,
) -> dict[str, Any]:
    """Compile every run of the inputs into the folder `out`, which appears only when complete; returns its manifest.

    `out` contains triples.jsonl, quarantine.jsonl (place, step and reason of every row left out) and manifest.json, and
    `with_messages` also messages.jsonl (see messages.py). A `judge` decides about answers of search runs that the rule
    leaves open.
    Raises DataError for a missing input or an `out` that may not be replaced, and TooManyBadRows if more than
    `max_bad_share` of the rows are unreadable or not recognised; then only quarantine.jsonl is written.
    """
    plan = prepare(
        inputs,
        out,
        agent=agent,
        resources=resources,
        settings=settings,
        tokenizer=tokenizer,
        near=near,
        with_messages=with_messages,
        judge=judge,
    )
    with folder_lock(plan.maker.work) as is_locked:
        if not is_locked:
            raise in_use(plan.out)
        plan.make(plan.tasks, num_workers)
        return publish(plan.maker.work, plan.out, max_bad_share=max_bad_share)


def compile_part(plan: "CompilePlan", part: tuple[int, int], *, num_workers: int = 1) -> dict[str, int]:
    """Make every n-th shard of a plan, starting with the i-th (`part` = (i, n), i from 0), for a later `merge`.

    Parts may run on any machines that share the folder of the output. Returns how many shards this part has, and how
    many there are in total.
    """
    return make_part(part, plan.tasks, plan.maker.work, plan.out, lambda mine: plan.make(mine, num_workers))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilePlan:
    """What is to be made: shards that are collected in a work folder, then the folder `out`."""

    out: Path
    maker: ShardMaker
    tasks: list[CompileTask]
    inputs: list[InputFile]

    def make(self, tasks: list[CompileTask], num_workers: int) -> None:
        """Make the stock and the given shards, as far as they do not exist."""
        if self.maker.settings.fill_tokens:
            self._make_stock(num_workers)
        self.maker.load()
        make_shards("compile", tasks, self.maker, in_processes(num_workers), self.inputs)

    def _make_stock(self, num_workers: int) -> None:
        """Make the stock of added distractors once; the other jobs of an array wait for the first."""
        maker = self.maker
        folder = maker.work / "stock"
        folder.mkdir(exist_ok=True)
        while not (maker.work / STOCK).is_file():
            with folder_lock(folder) as is_locked:
                if is_locked and not (maker.work / STOCK).is_file():
                    build_stock(
                        maker.work,
                        [LentTask(task.rows, folder / task.folder.name) for task in self.tasks],
                        maker.write_lent,
                        in_processes(num_workers),
                        seed=maker.settings.seed,
                        agents=list(maker.settings.fill_tokens),
                        resources=maker.found.resources,
                        tokenizer=maker.tokenizer,
                    )


def prepare(
    inputs: list[Path],
    out: Path,
    *,
    agent: str,
    resources: list[Path],
    settings: CompileSettings,
    tokenizer: Tokenizer,
    near: NearSettings | None = None,
    with_messages: bool = False,
    judge: JudgeSettings | None = None,
) -> CompilePlan:
    """Check the settings, find and divide the inputs, and record for `merge` what it needs in the work folder."""
    check_agent(agent)
    if settings.table_format not in TABLE_FORMATS:
        raise DataError(f"unknown table format {settings.table_format!r}; known: {', '.join(TABLE_FORMATS)}")
    out = resolve_output(out)
    check_output_folder(out)
    near = near or NearSettings()
    found = discover(inputs, resources, exclude=out, table_format=settings.table_format)
    judged = judge_open_answers(found, judge) if judge else None
    found.resources.verdicts = judged.verdicts if judged else {}
    used = dict.fromkeys((*found.files, *found.resources.databases.values(), *found.resource_files))
    files = {path: InputFile.at(located(path)) for path in used}
    ranges = list(found.ranges(ROWS_PER_SHARD))
    manifest = _manifest(found, files, agent, settings, tokenizer)
    if near.is_on:
        manifest["near_duplicates"] = near.as_dict()
    if judge and judged:
        manifest["judge"] = judged.summary(judge)
    record: CompileRecord = {
        "manifest": manifest,
        "shards": len(ranges),
        "num_input_files": len(found.files),
        "bad_resources": [asdict(bad) for bad in found.resources.bad_rows],
        "near": asdict(replace(near, evaluation=())),
        "with_messages": with_messages,
        "verdicts": {key: asdict(verdict) for key, verdict in sorted(found.resources.verdicts.items())},
    }
    work = open_work_folder(out, record)
    maker = ShardMaker(
        agent=agent,
        found=found,
        settings=settings,
        near=near,
        with_messages=with_messages,
        tokenizer=tokenizer,
        work=work,
    )
    folders = shard_folders(work, len(ranges))
    tasks = [CompileTask(rows, folder) for rows, folder in zip(ranges, folders, strict=True)]
    return CompilePlan(out=out, maker=maker, tasks=tasks, inputs=list(files.values()))


def _manifest(
    found: Inputs, files: dict[Path, InputFile], agent: str, settings: CompileSettings, tokenizer: Tokenizer
) -> dict[str, Any]:
    """The part of the manifest that is known before a row is compiled."""
    resources = found.resources
    return {
        "format": FORMAT,
        "format_version": 1,
        "code_version": __version__,
        "settings": {"agent": agent, **asdict(settings)},
        "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256},
        "inputs": [{"file": str(path), "bytes": file.stamp[0], "sha256": file.sha256} for path, file in files.items()],
        "ignored_files": [str(path) for path in found.ignored],
        "resources": {
            "rows": resources.num_rows,
            "instances": len(resources.instances),
            "stores": len(resources.stores),
            "databases": len(resources.databases),
            "bad_rows": len(resources.bad_rows),
        },
    }
