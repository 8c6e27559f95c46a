"""Shards on a Ray cluster: the same function, mapped by Ray instead of by local processes."""

import os
from collections.abc import Iterator
from typing import Any

from acc_megatron.data_tools.convert import Runner
from acc_megatron.data_tools.shards import ShardTask, make_shard
from acc_megatron.errors import EnvironmentProblem


def on_ray(address: str) -> Runner:
    """A runner on the cluster at `address` ("local" starts one here); its nodes must share input and output folders.

    Raises EnvironmentProblem when ray is not installed, or the cluster cannot be reached or fails.
    """
    try:
        import ray
    except ImportError:
        raise EnvironmentProblem("ray is not installed: run 'pip install acc-megatron[ray]'") from None

    def run(tasks: list[ShardTask]) -> Iterator[dict[str, Any]]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EnvironmentProblem(f"no Ray cluster answers at {address!r}: {error}; is --ray HOST:PORT?") from None
        try:
            waiting = [ray.remote(make_shard).remote(task) for task in tasks]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield from ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # what the shard itself raised
        except ray.exceptions.RayError as error:
            raise EnvironmentProblem(
                f"the Ray cluster gave up a shard: {error}; run the same command again: finished shards are kept"
            ) from None
        finally:
            ray.shutdown()

    return run
