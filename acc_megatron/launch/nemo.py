"""An experiment as nemo-run's: one task a stage with its executor and dependencies; the only file that imports it."""

import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.launch.record import Launched
from acc_megatron.launch.stages import Stage

MEND = (
    "in an environment of its own: python -m venv .venv-launch && .venv-launch/bin/pip install 'acc-megatron[launch]'"
)


def import_nemo_run(folder: Path) -> Any:
    """The module nemo_run, which keeps its files below `folder`; raises EnvironmentProblem where it is absent."""
    os.environ["NEMORUN_HOME"] = str(folder / "nemo")  # read when it is imported
    os.environ.setdefault("TORCHX_NO_VERSION_CHECK", "1")
    try:
        import nemo_run
    except ImportError as error:
        raise EnvironmentProblem(f"launching needs nemo-run ({error}): {MEND}") from None
    return nemo_run


class NemoExperiment:
    """Stages on their way to a scheduler; `make_executor` gives each its executor."""

    def __init__(
        self, run: Any, title: str, stages: Sequence[Stage], make_executor: Callable[[Stage], Any], *, workdir: str
    ) -> None:
        self.run, self.stages = run, stages
        self.experiment = run.Experiment(
            title, log_level="WARN", clean_mode=True, enable_goodbye_message=False, skip_status_at_exit=True
        )
        self.workdir, self.make_executor = workdir, make_executor

    def _add(self) -> None:
        ids: dict[str, str] = {}
        for stage in self.stages:
            executor = self.make_executor(stage)
            words = ["-C", self.workdir, *stage.command]
            if isinstance(executor, self.run.SlurmExecutor):  # nemo-run joins these by blanks into a line of bash
                words = [shlex.quote(word) for word in words]
            script = self.run.Script(entrypoint="env", path=words[0], args=words[1:])
            needs = [ids[name] for name in stage.needs]
            ids[stage.name] = self.experiment.add(script, executor=executor, name=stage.name, dependencies=needs)

    def dry_run(self) -> dict[str, Path]:
        """Write what would be submitted; stage -> file."""
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), self.experiment:
            self._add()
            self.experiment.dryrun(log=False, delete_exp_dir=False)
        return self._scripts()

    def submit(self, *, detach: bool) -> Launched:
        """Hand the stages to the scheduler; without `detach` return when all have ended."""
        with redirect_stdout(sys.stderr), self.experiment:  # results alone go to stdout
            self._add()
            self.experiment.run(detach=detach)
            jobs = {job.id: job.handle.rsplit("/", 1)[-1] for job in self.experiment.jobs if job.handle}
        states = {job.id: job.state.name for job in self.experiment.jobs}  # leaving the block has waited for the end
        scripts = {name: str(path) for name, path in self._scripts().items()}
        folders = {job.id: job.executor.job_dir for job in self.experiment.jobs}
        return Launched(jobs=jobs, states={} if detach else states, scripts=scripts, logs=folders)

    def _scripts(self) -> dict[str, Path]:
        folder = Path(self.experiment._exp_dir)
        found = {stage.name: folder / f"{stage.name}_sbatch.sh" for stage in self.stages}
        return {name: path for name, path in found.items() if path.is_file()}
