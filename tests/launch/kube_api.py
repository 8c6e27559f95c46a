"""A Kubernetes API server in memory, over HTTP: `python kube_api.py FOLDER` writes FOLDER/kubeconfig and serves.

It stores what is created, keeps nothing of a dry run, and refuses a body that the published schema refuses, as a server
asked for strict field validation does. FOLDER/finish ends every job well; FOLDER/kept.json lists what is there.
"""

import asyncio
import json
import sys
from pathlib import Path

import kmock
import kubernetes_validate

KINDS = {
    "batch/v1/jobs": "Job",
    "v1/services": "Service",
    "v1/configmaps": "ConfigMap",
    "v1/pods": "Pod",
    "trainer.kubeflow.org/v1alpha1/trainjobs": "TrainJob",
}
VERBS = {"get", "list", "create", "delete", "patch", "watch"}


def kubeconfig(server: str) -> str:
    """A kubeconfig that names one server."""
    return json.dumps({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "users": [{"name": "k", "user": {}}],
        "contexts": [{"name": "k", "context": {"cluster": "k", "user": "k"}}],
        "current-context": "k",
    })  # fmt: skip


def judge(request: kmock.Request) -> kmock.Response | None:
    """What the server says before it stores: 422 for a body against the schema, 201 for a good dry run."""
    body = request.data
    if body["kind"] != "TrainJob":
        try:
            kubernetes_validate.validate(body, "1.34", strict=True)
        except kubernetes_validate.ValidationError as error:
            return kmock.Response(status=422, payload={"kind": "Status", "message": str(error.message)})
    return None


async def serve(folder: Path) -> None:
    """Serve until killed."""
    async with kmock.KubernetesEmulator() as api, kmock.Server(api):
        for path, kind in KINDS.items():
            api.resources[path] = kmock.ResourceInfo(kind=kind, namespaced=True, verbs=VERBS)
        (folder / "kubeconfig").write_text(kubeconfig(str(api.url).rstrip("/")))
        while True:
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
