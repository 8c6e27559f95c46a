"""An experiment as nemo-run runs it: one task per job, with its executor and dependencies."""

import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.launch.jobs import Job
from acc_megatron.launch.launch_record import Launched
from acc_megatron.optional import missing_package


def import_nemo_run(folder: Path) -> Any:
    """The module nemo_run, which writes its files below `folder`; raises EnvironmentProblem if it is not installed."""
    os.environ["NEMORUN_HOME"] = str(folder / "nemo")  # nemo-run reads it at import
    os.environ.setdefault("TORCHX_NO_VERSION_CHECK", "1")
    try:
        import nemo_run
    except ModuleNotFoundError as error:
        raise missing_package("nemo_run", "launching") from error
    return nemo_run


class NemoExperiment:
    """Jobs to hand to a scheduler; `make_executor` returns the executor of each."""

    def __init__(
        self, run: Any, title: str, jobs: Sequence[Job], make_executor: Callable[[Job], Any], *, workdir: str
    ) -> None:
        self.run, self.jobs = run, jobs
        self.experiment = run.Experiment(
            title, log_level="WARN", clean_mode=True, enable_goodbye_message=False, skip_status_at_exit=True
        )
        self.workdir, self.make_executor = workdir, make_executor

    def _add(self) -> None:
        ids: dict[str, str] = {}
        for job in self.jobs:
            executor = self.make_executor(job)
            words = ["-C", self.workdir, *job.command]
            if isinstance(executor, self.run.SlurmExecutor):  # nemo-run joins these with spaces into a line of bash
                words = [shlex.quote(word) for word in words]
            script = self.run.Script(entrypoint="env", path=words[0], args=words[1:])
            needs = [ids[name] for name in job.needs]
            ids[job.name] = self.experiment.add(script, executor=executor, name=job.name, dependencies=needs)

    def dry_run(self) -> dict[str, str]:
        """Write the files that would be submitted; job -> file."""
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), self.experiment:
            self._add()
            self.experiment.dryrun(log=False, delete_exp_dir=False)
        return self._scripts()

    def submit(self, *, detach: bool) -> Launched:
        """Submit the jobs; without `detach` return when all have ended."""
        with redirect_stdout(sys.stderr), self.experiment:  # stdout is reserved for results
            self._add()
            self.experiment.run(detach=detach)
            jobs = {job.id: job.handle.rsplit("/", 1)[-1] for job in self.experiment.jobs if job.handle}
        states = {job.id: job.state.name for job in self.experiment.jobs}  # leaving the block has waited for the end
        folders = {job.id: job.executor.job_dir for job in self.experiment.jobs}
        return Launched(jobs=jobs, states={} if detach else states, scripts=self._scripts(), logs=folders)

    def _scripts(self) -> dict[str, str]:
        folder = Path(self.experiment._exp_dir)
        found = {job.name: folder / f"{job.name}_sbatch.sh" for job in self.jobs}
        return {name: str(path) for name, path in found.items() if path.is_file()}


def newest_log(record: Launched, job: str, *patterns: str) -> str:
    """The newest file of a job's log folder that matches the first pattern with a match; raises EnvironmentProblem."""
    folder = Path(record.logs[job])
    for pattern in patterns:
        if found := sorted(folder.glob(pattern), key=os.path.getmtime):
            return found[-1].read_text(encoding="utf-8", errors="replace")
    raise EnvironmentProblem(f"{job} has no log in {folder} yet: 'acc-megatron launch status' shows its state")
