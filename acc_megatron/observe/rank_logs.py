"""A plug-in of torchrun that names log files by the rank of a process in the job."""

from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest


class RankLogs(DefaultLogsSpecs):
    """`LOGS/rank_00003.out` and `.err`; torchrun's default names contain only the rank within the node.

    Registered in setup.py as `acc_ranks`, for `torchrun --logs-specs acc_ranks --log-dir LOGS`.
    """

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Return the files of this node's processes, which torchrun opens at every start."""
        files = super().reify(envs)
        streams = ((files.stdouts, files.tee_stdouts, "out"), (files.stderrs, files.tee_stderrs, "err"))
        for to_file, to_both, ending in streams:
            for worker in [worker for worker, path in to_file.items() if path]:
                path = str(Path(self.root_log_dir) / f"rank_{int(envs[worker]['RANK']):05d}.{ending}")
                to_file[worker] = path
                if worker in to_both:
                    to_both[worker] = path
        return files
