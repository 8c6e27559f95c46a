"""A Kubernetes API server in memory, over HTTP: `python kube_api.py FOLDER` writes FOLDER/kubeconfig and serves.

kmock stores the objects. This file adds strict validation and dry runs: a body that does not follow the published
schema is refused, and a dry run stores nothing. FOLDER/conditions.json, `{job: "Complete" or "Failed"}`, replaces the
job controller; every job has one pod with a log. FOLDER/requests.jsonl lists every request.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp.web
import kmock

from support.kube_check import problems

KINDS = {
    "batch/v1/jobs": "Job",
    "v1/services": "Service",
    "v1/configmaps": "ConfigMap",
    "v1/pods": "Pod",
    "trainer.kubeflow.org/v1alpha1/trainjobs": "TrainJob",
}
VERBS = {"get", "list", "create", "delete", "patch", "watch"}
FOLDER = Path(sys.argv[1])


class StrictServer(kmock.KubernetesEmulator):
    """kmock's emulator with validation, dry runs, job conditions, and pods with logs."""

    async def _handle(self, request: Any) -> Any:
        with (FOLDER / "requests.jsonl").open("a") as log:
            log.write(json.dumps([request.method.name.lower(), request.url.path, dict(request.params)]) + "\n")
        plural = request.resource.plural if request.resource else ""
        if request.action == kmock.action.CREATE:
            if found := problems(request.data):
                return aiohttp.web.json_response({"kind": "Status", "message": "; ".join(found)}, status=422)
            if request.params.get("dryRun") == "All":
                return aiohttp.web.json_response(request.data, status=201)
        if plural == "pods" and request.subresource == "log":
            return aiohttp.web.Response(text=f"said by {request.name}\n")
        if plural == "pods" and request.name is None:
            job = request.params["labelSelector"].partition("=")[2]
            pod = {"metadata": {"name": f"{job}-0-abcde"}}
            return aiohttp.web.json_response({"kind": "PodList", "apiVersion": "v1", "items": [pod]})
        if plural in ("jobs", "trainjobs") and request.action == kmock.action.FETCH:
            self._play_controller(request)
        return await super()._handle(request)

    def _play_controller(self, request: Any) -> None:
        path = FOLDER / "conditions.json"
        kind = json.loads(path.read_text()).get(request.name) if path.is_file() else None
        for (resource, _, name), stored in self._objects.items():
            if resource == request.resource and name == request.name and not stored.deleted:
                stored.patch({"status": {"conditions": [{"type": kind, "status": "True"}]} if kind else {"active": 1}})


def kubeconfig(server: str) -> str:
    """A kubeconfig with one server."""
    context = {"name": "k", "context": {"cluster": "k", "user": "k"}}
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "k", "contexts": [context],
        "clusters": [{"name": "k", "cluster": {"server": server}}], "users": [{"name": "k", "user": {}}],
    })  # fmt: skip


async def serve() -> None:
    """Serve until killed."""
    async with StrictServer() as api, kmock.Server(api):
        for path, kind in KINDS.items():
            api.resources[path] = kmock.ResourceInfo(kind=kind, namespaced=True, verbs=VERBS)
        (FOLDER / "kubeconfig").write_text(kubeconfig(str(api.url).rstrip("/")))
        while True:
            await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(serve())
