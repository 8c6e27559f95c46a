"""Task instances of Multi-SWE-bench as those of SWE-bench."""

from typing import Any

from acc_megatron.data_tools.rows.fields import objects_in, optional_object

_KEYS = {"org", "repo", "number", "base", "fix_patch"}


def is_pull_request(value: dict[str, Any]) -> bool:
    """Whether a row is an instance of Multi-SWE-bench."""
    return value.keys() >= _KEYS and isinstance(value["fix_patch"], str)


def as_instance(value: dict[str, Any]) -> dict[str, Any]:
    """The row with SWE-bench's fields if it is a pull request of Multi-SWE-bench; any other row as it is.

    The issues that it resolves are the problem statement, otherwise the text of the pull request.
    """
    if not is_pull_request(value):
        return value
    found = value.get("resolved_issues")
    issues = objects_in(found)
    texts = [issue.get(key) for issue in issues or [value] for key in ("title", "body")]
    return value | {
        "instance_id": f"{value['org']}__{value['repo']}-{value['number']}",
        "repo": f"{value['org']}/{value['repo']}",
        "base_commit": str(optional_object(value, "base").get("sha", "")),
        "patch": value["fix_patch"],
        "problem_statement": "\n\n".join(text.strip() for text in texts if isinstance(text, str) and text.strip()),
    }
