"""Validates Kubernetes objects offline, as a strict server would: `python kube_check.py FILE...`, JSON or YAML.

Core objects are compared with the schemas that Kubernetes publishes. Kubeflow's models ignore unknown fields, so a
TrainJob is converted to these models and back: a field that is lost is unknown to that version of the Trainer.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

VERSION = "1.34"


def problems(body: dict[str, Any]) -> list[str]:
    """The problems of one object, or of each item of a List."""
    if body["kind"] == "List":
        return [problem for item in body["items"] for problem in problems(item)]
    if body["kind"] == "TrainJob":
        kept = TrainerV1alpha1TrainJob.from_dict(body).to_dict()
        return [f"TrainJob: unknown field {path}" for path in dropped(body, kept)]
    try:
        kubernetes_validate.validate(body, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{body['kind']}: {'.'.join(map(str, error.path))}: {error.message}"]
    return []


def dropped(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """The paths in `before` that are missing in `after`."""
    if isinstance(before, dict):
        for key, value in before.items():
            if not isinstance(after, dict) or key not in after:
                yield f"{path}.{key}"
            else:
                yield from dropped(value, after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from dropped(old, new, f"{path}[{number}]")


if __name__ == "__main__":
    found = {}
    for name in sys.argv[1:]:
        bodies = [body for body in yaml.safe_load_all(Path(name).read_text()) if body]
        found[name] = [problem for body in bodies for problem in problems(body)]
    print(json.dumps(found))
