"""The verb plan: what a run needs and takes, before it is paid for."""

import json
from typing import Annotated

import typer

from acc_megatron.cli.options import Json, Overrides, Recipe

verbs = typer.Typer()


@verbs.command(short_help="Memory, time and cost of a run, without a GPU.")
def plan(
    config: Recipe,
    overrides: Overrides = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="World size. Default: the smallest that the layout allows.")
    ] = None,
    search: Annotated[bool, typer.Option("--search", help="Rank every legal layout instead.")] = False,
    machine: Annotated[str, typer.Option(help="h100, h200 or b200.")] = "h100",
    as_json: Json = False,
) -> None:
    """Memory of every pipeline stage, bytes of every collective, step time and cost; builds the model on no device."""
    from acc_megatron.config import load_config
    from acc_megatron.machines import find_machine
    from acc_megatron.plan.planner import as_json as plan_as_json
    from acc_megatron.plan.planner import check_plan, make_plan, smallest_world
    from acc_megatron.plan.workload import read_workload

    resolved, gpu = load_config(config, overrides or []), find_machine(machine)
    world = gpus or smallest_world(resolved)
    if search:
        from acc_megatron.plan.search import search as rank_layouts
        from acc_megatron.plan.search import search_as_json
        from acc_megatron.plan.table import render_search

        plans = rank_layouts(resolved, world, gpu, read_workload(resolved))
        print(json.dumps(search_as_json(plans)) if as_json else render_search(plans, world))
        return
    layout = check_plan(resolved, world, gpu)
    workload = read_workload(resolved)
    from acc_megatron.plan.real_model import built_parameters
    from acc_megatron.plan.table import render_plan

    made = make_plan(resolved, layout, gpu, workload, built_parameters(resolved, layout))
    print(json.dumps(plan_as_json(made)) if as_json else render_plan(made))
