"""Shards on a Ray cluster: the same function, mapped by Ray instead of by local processes."""

import os
from collections.abc import Iterator
from typing import Any

from acc_megatron.data_tools.convert import Runner
from acc_megatron.data_tools.shards import ShardTask, make_shard
from acc_megatron.errors import EnvironmentProblem


def on_ray(address: str) -> Runner:
    """A runner on the cluster at `address` ("local" starts one here); its nodes must share input and output folders.

    Raises EnvironmentProblem when ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise EnvironmentProblem("ray is not installed: run 'pip install acc-megatron[ray]'") from None

    def run(tasks: list[ShardTask]) -> Iterator[dict[str, Any]]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, **local)
        try:
            waiting = [ray.remote(make_shard).remote(task) for task in tasks]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield from ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # what the shard itself raised
        finally:
            ray.shutdown()

    return run
