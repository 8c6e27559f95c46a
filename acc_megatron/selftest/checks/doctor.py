"""The doctor on every node."""

from acc_megatron.doctor.examine import examine
from acc_megatron.selftest.check import CheckFailed, Found
from acc_megatron.selftest.place import Place


class Doctor:
    """Packages, memory, disk, GPUs and NCCL, examined by the first rank of each node."""

    name = "doctor"
    summary = "every package and device that training needs is present"
    limit_seconds = 600.0
    advice = "run acc-megatron doctor on that node and follow its last lines"

    def run(self, place: Place) -> Found:
        """Fail with the findings that would stop a job."""
        if place.local_rank > 0:
            return Found()
        findings = examine()
        stopping = [finding for finding in findings if finding.stops_the_job]
        if stopping:
            raise CheckFailed("; ".join(f"{finding.name}: {finding.found}" for finding in stopping))
        return Found({"things examined": len(findings)})
