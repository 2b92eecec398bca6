"""The Slurm of the tests hands out GPUs, listens on loopback alone, and leaves no process behind."""

import psutil
from slurm import running_slurm
from waiting import until


def test_jobs_get_gpus_of_their_own_and_end_with_their_slurm() -> None:
    others = psutil.Process().children(recursive=True)
    with running_slurm({"one": 3, "two": 1}) as slurm:
        slurm.call("sbatch", "--chdir=/", "--output=/dev/null", "--gpus=3", "--wrap", "sleep 1000")
        until(lambda: slurm.jobs()["1"]["JobState"] == "RUNNING", "a job that runs")
        assert slurm.jobs()["1"]["GRES"] == "gpu:3(IDX:0-2)"
        shown = slurm.call("srun", "--gpus=1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES of $SLURMD_NODENAME")
        assert shown == "0 of two\n"
        started = {*psutil.Process().children(recursive=True)}.difference(others)
        assert {process.name() for process in started} >= {"munged", "slurmctld", "slurmd", "slurmstepd", "sleep"}
        open_to = {
            each.laddr.ip for process in started for each in process.net_connections() if each.status == "LISTEN"
        }
        assert open_to == {"127.0.0.1"}
    assert not any(process.is_running() for process in started)
