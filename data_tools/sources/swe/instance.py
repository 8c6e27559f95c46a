"""Finds the task instance of a SWE run.

Four signs are tried, from the surest to the weakest; the first that names exactly one known instance decides:
1. an id in the run's fields (`instance_id`, `environment`, `info`, the image of the container, the id of the replayed
   problem statement);
2. an instance id in the name of the file or of its folder (for a folder `events`, of the folder above it);
3. `<repo>-<number>` in the name of the file;
4. the problem statement in the first message to the agent that is not a demonstration.
If a run has an `instance_id`, no other instance is used. If a run worked in `/<owner>__<repo>/`, no instance of another
repository is used. Demonstrations show other tasks, so neither their text nor their paths count.
"""

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.rows.fields import embedded_object, optional_object
from acc_megatron.data_tools.sources.formats.swe_agent import first_prompt
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.errors import Dropped

_ID, _RUN_SUFFIX = re.compile(r"[\w.-]+__[\w.-]+-\d+"), re.compile(r"(?:\.traj)?(?:\.jsonl?)?(?:\.gz|\.zst)?$")
_FOLDER = re.compile(r"(?<![\w.-])/([\w.-]+?__[\w.-]+?)(?=/|[\"'\s]|$)")

_GIVE_INSTANCES = "give a file with its row (instance_id, repo, base_commit, problem_statement, patch) with --resources"


def find_instance(row: Row, resources: Resources) -> str:
    """The instance id of a run. Raises Dropped: no_instance_row, or ambiguous_instance."""
    folders, own = working_folders(row.value), row.value.get("instance_id")
    if isinstance(own, str) and own and own not in resources.instances:
        raise Dropped(
            "no_instance_row",
            f"instance {own!r:.100} is not among the {len(resources.instances)} known ones; {_GIVE_INSTANCES}",
        )
    for sign in (_by_field, _by_full_name, _by_short_name, _by_statement):
        found = [id_ for id_ in sign(row, resources) if not folders or id_.lower().rsplit("-", 1)[0] in folders]
        if len(found) > 1:
            raise Dropped("ambiguous_instance", f"{len(found)} instances match {sign.__name__[1:]}: {found[:5]}")
        if found:
            return found[0]
    where = f"; it worked in {', '.join(sorted(folders))}" if folders else ""
    raise Dropped(
        "no_instance_row",
        f"none of the {len(resources.instances)} known instances matches this run{where}; {_GIVE_INSTANCES}",
    )


def instance_id_of(row: Row, resources: Resources) -> str:
    """The id of the run's instance, which need not be known; '' if neither the row nor its file's name states one."""
    try:
        return find_instance(row, resources)
    except Dropped:
        path, stated = PurePath(row.file), _stated_ids(row.value)
        if isinstance(own := row.value.get("instance_id"), str) and own:
            return own
        named = [*stated, _RUN_SUFFIX.sub("", path.name), path.parent.name]
        return next((name for name in named if name in resources.reports or _ID.fullmatch(name)), "".join(stated[:1]))


def own_instance(value: dict[str, Any], resources: Resources) -> dict[str, Any] | None:
    """The instance row under `instance` of a run (OpenHands), unless a resource has that instance."""
    instance = optional_object(value, "instance")
    is_complete = all(isinstance(instance.get(key), str) for key in ("instance_id", "patch", "problem_statement"))
    return instance if is_complete and instance["instance_id"] not in resources.instances else None


def working_folders(value: dict[str, Any]) -> set[str]:
    """`<owner>__<repo>` of the working folders in the states of the steps, except the prefix of SWE-bench itself."""
    steps = value.get("trajectory")
    states = (step.get("state") for step in steps if isinstance(step, dict)) if isinstance(steps, list) else ()
    names = {name.lower() for state in states for name in _FOLDER.findall(_working_folder(state))}
    return {name for name in names if not name.startswith("swe-bench__")}


def _working_folder(state: object) -> str:
    """The working folder of a state, which is JSON text in older logs and an object in newer ones."""
    return str(embedded_object(state).get("working_dir", ""))[:1000]


def _by_field(row: Row, resources: Resources) -> Iterator[str]:
    yield from (id_ for id_ in _stated_ids(row.value) if id_ in resources.instances)


def _stated_ids(value: dict[str, Any]) -> list[str]:
    """Every id in the fields of a run, whether it is known or not."""
    statement = optional_object(embedded_object(value.get("replay_config")), "problem_statement")
    info = optional_object(value, "info")
    image = optional_object(optional_object(info, "config"), "environment").get("image")
    ids = [value.get("instance_id"), value.get("environment"), info.get("instance_id"), statement.get("id")]
    ids += [optional_object(value, place).get("instance_id") for place in ("instance", "metadata", "meta")]
    ids += [_id_of_image(found) for found in (image, value.get("image"), value.get("docker_image"))]
    return list(dict.fromkeys(id_ for id_ in ids if isinstance(id_, str) and id_))


def _by_full_name(row: Row, resources: Resources) -> Iterator[str]:
    path = PurePath(row.file)
    folders = path.parts[-3:] if path.parent.name == "events" else path.parts[-2:]  # a folder with a file an event
    yield from (id_ for id_ in resources.instances if _contains("/".join(folders), id_))


def _by_short_name(row: Row, resources: Resources) -> Iterator[str]:
    name = PurePath(row.file).name
    yield from (id_ for id_ in resources.instances if _contains(name, id_.partition("__")[2] or id_))


def _by_statement(row: Row, resources: Resources) -> Iterator[str]:
    prompt = " ".join(first_prompt(row.value).split())
    for id_, entry in resources.instances.items():
        if entry.title and entry.title in prompt:  # a cheap test before the complete statement
            statement = " ".join(str(resources.instance(id_).get("problem_statement", "")).split())
            if statement in prompt:
                yield id_


def _id_of_image(image: object) -> str:
    """The id in SWE-bench's image name `.../sweb.eval.x86_64.owner_1776_repo-12:latest`, with `_1776_` for `__`."""
    name = image.rpartition("/")[2].partition(":")[0] if isinstance(image, str) else ""
    return name.rpartition(".x86_64.")[2].replace("_1776_", "__")


def _contains(name: str, id_: str) -> bool:
    """Whether a name contains an id that does not continue: `astropy-1` is not in `astropy-14`."""
    return (
        id_.lower() in name.lower() and re.search(rf"(?<![\w-]){re.escape(id_)}(?!\d)", name, re.IGNORECASE) is not None
    )
