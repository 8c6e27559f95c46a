"""Which task instance a SWE-agent run worked on.

Four signs, from surest to weakest; the first that names exactly one known instance decides:
1. an id in the run's own fields (`instance_id`, `environment`, `info`, the container's image, the replayed problem
   statement's id);
2. an instance id in the file's name or its folder's name;
3. `<repo>-<number>` in the file's name;
4. the problem statement in the first message to the agent that is no demonstration.
A run that states an `instance_id` is of no other. An instance of another repository than the `/<owner>__<repo>/` the
run worked in is never taken. Demonstrations in the prompt are of other tasks: neither their text nor their paths count.
"""

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from acc_megatron.data_tools.jsonl import Row
from acc_megatron.data_tools.resources import Resources
from acc_megatron.data_tools.schema import Dropped
from acc_megatron.data_tools.sources.fields import embedded_object, optional_object
from acc_megatron.data_tools.sources.swe_steps import first_prompt

_FOLDER = re.compile(r"(?<![\w.-])/([\w.-]+?__[\w.-]+?)(?=/|[\"'\s]|$)")


def find_instance(row: Row, resources: Resources) -> str:
    """The id of the run's instance. Raises Dropped: no_instance_row, or ambiguous_instance."""
    folders, own = working_folders(row.value), row.value.get("instance_id")
    if isinstance(own, str) and own and own not in resources.instances:
        raise Dropped("no_instance_row", f"its instance {own!r:.100} is none of {len(resources.instances)} known ones")
    for sign in (_by_field, _by_full_name, _by_short_name, _by_statement):
        found = [id_ for id_ in sign(row, resources) if not folders or id_.lower().rsplit("-", 1)[0] in folders]
        if len(found) > 1:
            raise Dropped("ambiguous_instance", f"{len(found)} instances fit by {sign.__name__[1:]}: {found[:5]}")
        if found:
            return found[0]
    where = f"; it worked in {', '.join(sorted(folders))}" if folders else ""
    raise Dropped("no_instance_row", f"none of {len(resources.instances)} known instances is this run's{where}")


def own_instance(value: dict[str, Any], resources: Resources) -> dict[str, Any] | None:
    """The instance row that a run carries under `instance` (OpenHands), unless its id is known from a resource."""
    instance = optional_object(value, "instance")
    is_whole = all(isinstance(instance.get(key), str) for key in ("instance_id", "patch", "problem_statement"))
    return instance if is_whole and instance["instance_id"] not in resources.instances else None


def working_folders(value: dict[str, Any]) -> set[str]:
    """`<owner>__<repo>` of the absolute working folders in the steps' states; swe-bench's own prefix is none."""
    steps = value.get("trajectory")
    states = (step.get("state") for step in steps if isinstance(step, dict)) if isinstance(steps, list) else ()
    names = {name.lower() for state in states for name in _FOLDER.findall(_working_folder(state))}
    return {name for name in names if not name.startswith("swe-bench__")}


def _working_folder(state: object) -> str:
    """A step's state is a JSON string in the old layout and an object in the new."""
    return str(embedded_object(state).get("working_dir", ""))[:1000]


def _by_field(row: Row, resources: Resources) -> Iterator[str]:
    value = row.value
    statement = optional_object(embedded_object(value.get("replay_config")), "problem_statement")
    info = optional_object(value, "info")
    image = optional_object(optional_object(info, "config"), "environment").get("image")
    ids = [value.get("instance_id"), value.get("environment"), info.get("instance_id"), statement.get("id")]
    ids += [optional_object(value, "instance").get("instance_id"), _id_of_image(image)]
    yield from dict.fromkeys(id_ for id_ in ids if isinstance(id_, str) and id_ in resources.instances)


def _by_full_name(row: Row, resources: Resources) -> Iterator[str]:
    path = PurePath(row.file)
    yield from (id_ for id_ in resources.instances if _holds(f"{path.parent.name}/{path.name}", id_))


def _by_short_name(row: Row, resources: Resources) -> Iterator[str]:
    name = PurePath(row.file).name
    yield from (id_ for id_ in resources.instances if _holds(name, id_.partition("__")[2] or id_))


def _by_statement(row: Row, resources: Resources) -> Iterator[str]:
    prompt = " ".join(first_prompt(row.value).split())
    for id_, entry in resources.instances.items():
        if entry.title and entry.title in prompt:  # cheap; the whole statement decides
            statement = " ".join(str(resources.instance(id_).get("problem_statement", "")).split())
            if statement in prompt:
                yield id_


def _id_of_image(image: object) -> str:
    """SWE-bench names images `.../sweb.eval.x86_64.owner_1776_repo-12:latest`: the id with `__` written `_1776_`."""
    name = image.rpartition("/")[2].partition(":")[0] if isinstance(image, str) else ""
    return name.rpartition(".x86_64.")[2].replace("_1776_", "__")


def _holds(name: str, id_: str) -> bool:
    """Whether a name holds an id as a whole: `astropy-1` is not in `astropy-14`."""
    return (
        id_.lower() in name.lower() and re.search(rf"(?<![\w-]){re.escape(id_)}(?!\d)", name, re.IGNORECASE) is not None
    )
