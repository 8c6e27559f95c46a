"""The verbs plan, recipe and calibrate: memory, time and cost of a run, from assumed or from measured speeds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acc_megatron.cli.options import Json, Overrides, Recipe, say_next

if TYPE_CHECKING:
    from acc_megatron.plan.planner import Plan

verbs = typer.Typer()


@verbs.command(short_help="Memory, time and cost of a run, without a GPU.")
def plan(
    config: Recipe,
    overrides: Overrides = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="World size. By default the smallest that the layout allows.")
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Rank all legal layouts instead of planning the layout in CONFIG.")
    ] = False,
    write: Annotated[
        tuple[int, Path] | None,
        typer.Option(metavar="N FILE", help="With --search: write the recipe of rank N to FILE."),
    ] = None,
    machine: Annotated[str, typer.Option(help="h100, h200, b200, or a TOML file written by calibrate.")] = "h100",
    trace: Annotated[
        Path | None, typer.Option(help="Write the predicted step as a Chrome trace, for ui.perfetto.dev.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the plan as a page.")] = None,
    as_json: Json = False,
) -> None:
    """Predict memory of every pipeline stage, bytes of every collective, step time and cost. Needs no GPU."""
    from acc_megatron.config import load_config
    from acc_megatron.errors import ConfigError
    from acc_megatron.mesh.layout import smallest_world
    from acc_megatron.plan import plan_recipe
    from acc_megatron.plan.machine_file import read_machine
    from acc_megatron.plan.plan_json import plan_json, search_json
    from acc_megatron.plan.search import faster_plan
    from acc_megatron.plan.search import search as search_layouts
    from acc_megatron.plan.shortage import remedies
    from acc_megatron.plan.text_table import render_faster, render_plan, render_search, render_shortage
    from acc_megatron.plan.workload import read_workload

    if write and not search:
        raise ConfigError("--write N FILE needs --search, which makes the ranking that N counts")
    for option, file in (("--trace", trace), ("--html", html)):
        if file and search:
            raise ConfigError(f"{option} FILE draws the layout in CONFIG: leave out --search")
    resolved, speeds = load_config(config, overrides or []), read_machine(machine)
    world = gpus or smallest_world(resolved.parallel)
    if search:
        plans = search_layouts(resolved, world, speeds, read_workload(resolved))
        if write:
            _write_recipe(plans, *write)
        missing = remedies(plans[0])
        print(json.dumps(search_json(plans, missing)) if as_json else render_search(plans, world))
        if missing and not as_json:
            print(f"\n{render_shortage(plans[0], missing)}")
        if write:
            say_next("doctor", "--config", write[1], "--gpus", world, when="on the machines of the run")
        elif plans[0].fits:
            say_next("plan", config, *overrides or [], "--gpus", world, "--search", "--write", 1, "FILE")
        return
    made = plan_recipe(resolved, gpus=world, machine=speeds)
    if trace:
        from acc_megatron.common.atomic_files import write_json
        from acc_megatron.plan.trace import trace as trace_step

        write_json(trace, trace_step(made))
    faster = faster_plan(made)
    if html:
        from acc_megatron.plan.plan_page import write_plan_page

        write_plan_page(html, made)
    missing = [] if faster else remedies(made)
    print(json.dumps(plan_json(made, faster, missing)) if as_json else render_plan(made))
    if missing and not as_json:
        print(f"\n{render_shortage(made, missing)}")
    if faster and not as_json:
        print(f"\n{render_faster(made, faster, config, overrides or [])}")
    if made.fits:
        say_next("doctor", *overrides or [], "--config", config, "--gpus", world, when="on the machines of the run")


def _write_recipe(plans: list["Plan"], number: int, path: Path) -> None:
    """Write the recipe of the plan with this rank; raises ConfigError if there is none that fits."""
    from acc_megatron.common.atomic_files import atomic_file
    from acc_megatron.common.toml_text import write_toml
    from acc_megatron.errors import ConfigError

    num_fitting = sum(plan.fits for plan in plans)
    if not 1 <= number <= num_fitting:
        raise ConfigError(f"--write {number}: the search has {num_fitting:,} layouts that fit, from rank 1")
    chosen = plans[number - 1]
    with atomic_file(path) as file:
        about = f"# {chosen.layout} on {chosen.layout.world} {chosen.machine.name}: planned, not measured\n"
        file.write(f"{about}{write_toml(chosen.config)}\n".encode())


@verbs.command(short_help="Measure the speeds of this machine for plan --machine.")
def calibrate(
    out: Annotated[Path, typer.Option("--out", help="TOML file to write.")],
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Recipe whose layer is measured; Qwen3-30B-A3B if none.")
    ] = None,
    overrides: Overrides = None,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds to measure for; at least three rounds.")] = 90,
    as_json: Json = False,
) -> None:
    """Measure what plan otherwise assumes. Under torchrun also the collectives between its processes."""
    from acc_megatron.calibrate.default_recipe import default_recipe
    from acc_megatron.calibrate.run import calibrate as measure_machine
    from acc_megatron.config import load_config
    from acc_megatron.errors import ConfigError
    from acc_megatron.mesh.torchrun_environment import is_rank_zero, say

    if out.suffix != ".toml":
        raise ConfigError(f"--out {out}: the name must end with .toml; plan --machine takes other names for GPUs")
    recipe = load_config(config, overrides or []) if config else default_recipe()
    measure_machine(recipe, out, budget_seconds=seconds, say=say)
    if is_rank_zero():
        print(json.dumps({"machine": str(out)}) if as_json else out)
        say_next("plan", config or "CONFIG", "--machine", out)


@verbs.command(short_help="A training recipe for a Hugging Face model.")
def recipe(
    hf_dir: Annotated[Path, typer.Argument(metavar="HF_DIR", help="A folder with the config.json of a Qwen3 model.")],
    gpus: Annotated[int, typer.Option(min=1, help="World size.")],
    seq_length: Annotated[int, typer.Option(min=1, help="Length of a packed row in tokens.")],
    batch_rows: Annotated[int, typer.Option(min=1, help="Packed rows of an optimizer step.")] = 16,
    yarn: Annotated[bool, typer.Option("--yarn", help="Extend the model's window to the row by YaRN.")] = False,
    machine: Annotated[str, typer.Option(help="h100, h200 or b200.")] = "h100",
    as_json: Json = False,
) -> None:
    """Print a recipe with the fastest planned layout that leaves 15 % of the memory free. Needs no GPU."""
    from acc_megatron.mesh.gpu_specs import find_machine
    from acc_megatron.plan.recipe import Request, make_recipe

    request = Request(
        folder=hf_dir,
        num_gpus=gpus,
        seq_length_tokens=seq_length,
        machine=find_machine(machine),
        global_batch_rows=batch_rows,
        yarn=yarn,
    )
    made = make_recipe(request)
    print(json.dumps({"recipe": made}) if as_json else made, end="\n" if as_json else "")
    say_next("plan", "FILE", "--gpus", gpus, when="with the recipe in a FILE")
