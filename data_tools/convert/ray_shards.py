"""Making shards on a Ray cluster in place of local processes."""

import os
from collections.abc import Iterator
from typing import Any

from acc_megatron.data_tools.sharding.worker_processes import Make, Runner, ShardCounts
from acc_megatron.errors import EnvironmentProblem
from acc_megatron.optional import missing_package


def on_ray(address: str) -> Runner:
    """A runner on the cluster at `address` ("local" starts one here); all nodes must see input and output.

    Raises EnvironmentProblem when ray is not installed, or the cluster cannot be reached or fails.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise missing_package("ray", "--ray") from error

    def run(tasks: list[Any], make: Make) -> Iterator[ShardCounts]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EnvironmentProblem(f"no Ray cluster at {address!r}: {error}; give --ray HOST:PORT") from None
        try:
            waiting = [ray.remote(make).remote(task) for task in tasks]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield from ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # what the shard itself raised
        except ray.exceptions.RayError as error:
            raise EnvironmentProblem(
                f"the Ray cluster failed to make a shard: {error}; run the same command again: finished shards are kept"
            ) from None
        finally:
            ray.shutdown()

    return run
