"""One log a rank: torchrun's plug-in that names the files of its workers by their rank in the whole job."""

from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest


class RankLogs(DefaultLogsSpecs):
    """`LOGS/rank_00003.out` and `.err`; torchrun's own layout knows the number within a node alone.

    Registered in setup.py as `acc_ranks`, for `torchrun --logs-specs acc_ranks --log-dir LOGS`.
    """

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """The files of this node's workers, which torchrun opens anew at every start."""
        files = super().reify(envs)
        streams = ((files.stdouts, files.tee_stdouts, "out"), (files.stderrs, files.tee_stderrs, "err"))
        for to_file, to_both, ending in streams:
            for worker in [worker for worker, path in to_file.items() if path]:
                path = str(Path(self.root_log_dir) / f"rank_{int(envs[worker]['RANK']):05d}.{ending}")
                to_file[worker] = path
                if worker in to_both:
                    to_both[worker] = path
        return files
