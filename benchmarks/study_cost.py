"""`python -m benchmarks.study_cost STUDY NETWORK=RATE …`: what a study costs on 8, 64 and 512 GPUs, as an estimate.

RATE: images a second that one GPU trains the network on with labels, forwards and backwards, at the study's image size.
All else is counted: passes through networks by the plan's epochs, widths and views, and bytes by the networks' shapes.
"""

import heapq
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch

from us3l.models.backbones.backbone import Backbone
from us3l.models.complexity import cost
from us3l.params.protocols.trained import TrainedProtocol
from us3l.params.reading import load
from us3l.params.runs import PretrainRun
from us3l.params.sampling import Sampling
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.training.student import build_student
from us3l.training.width_sampling import min_width

IMAGES = {"imagenet": 1_281_167, "imagenet-1pct": 12_811, "imagenet-10pct": 128_116}  # of training
TEST_IMAGES = 50_000
SIDE = 224  # pixels
FORWARD = 1 / 3  # of the work of a pass forwards and backwards
NODE = 8  # GPUs
CLUSTERS = (8, 64, 512)  # GPUs


def main() -> None:
    """Print GPU-hours by stage, hours on each size of cluster, and bytes."""
    torch.set_num_threads(1)
    study, *rates = sys.argv[1:]
    rate = {name: float(value) for name, value in (each.split("=") for each in rates)}
    plan = Plan(load(Path("params.yaml")))
    computed = [job for job in jobs(plan, [study]) if isinstance(job, RunStage)]
    hours = {job: passes(job) / rate[job.run.backbone] / job.gpus / 3600 for job in computed}
    for stage in dict.fromkeys(job.stage for job in hours):
        spent = sum(each * job.gpus for job, each in hours.items() if job.stage == stage)
        print(f"{stage}: {spent:,.0f} GPU-hours")
    print(f"all: {sum(each * job.gpus for job, each in hours.items()):,.0f} GPU-hours")
    for count in CLUSTERS:
        print(f"{count} GPUs: {makespan(hours, count):,.1f} hours")
    longest = max(hours, key=hours.__getitem__)
    print(f"longest job: {longest.command}, {hours[longest]:.1f} hours")
    for name, size in {"checkpoints": checkpoint_bytes, "networks": network_bytes, "states": state_bytes}.items():
        print(f"{name}: {sum(size(job) for job in hours) / 1e9:.2f} GB")


# --- work -----------------------------------------------------------------------------------------------------------


def passes(job: RunStage) -> float:
    """Count images that go forwards and backwards through the widest network of the run's backbone."""
    run, protocol = job.run, job.run.protocol
    assert isinstance(protocol, TrainedProtocol)  # nearest neighbours have no epochs
    images, widths = IMAGES[run.data.name], sum(share(run.backbone, width) for width in run.widths)
    match job.stage:
        case "pretrain":
            return images * passes_of_training(run)
        case "calibrate":
            return protocol.calibration.passes * images * widths * FORWARD
        case "linear":
            return (protocol.epochs * images + TEST_IMAGES) * widths * FORWARD
        case "finetune":
            return (protocol.epochs * images + TEST_IMAGES * FORWARD) * widths
    raise ValueError(job.stage)


def passes_of_training(run: RunPlan) -> float:
    """Count the passes of an image in a training: two views at each width, and forwards through a momentum teacher."""
    settings, sampling = run.run, run.sampling
    assert isinstance(settings, PretrainRun) and isinstance(sampling, Sampling) and sampling.rule == "sandwich"
    teacher = 2 * FORWARD * share(run.backbone, sampling.widest) if settings.method.momentum is not None else 0.0
    lows = [min_width(sampling, epoch, settings.epochs) for epoch in range(settings.epochs)]
    return sum(2 * _shares_of_a_step(run.backbone, sampling, low) + teacher for low in lows)


def _shares_of_a_step(backbone: str, sampling: Sampling, low: float) -> float:
    """Return what the shares of a step's widths sum up to on average, where they are sampled down to `low`."""
    high = sampling.widest
    if low == high:
        return share(backbone, high)
    between = np.mean([share(backbone, width) for width in np.linspace(low, high, 101)])
    return share(backbone, low) + share(backbone, high) + (sampling.widths_per_step - 2) * float(between)


def share(backbone: str, width: float) -> float:
    """Return the multiply-accumulates of a width as a share of those of the widest network."""
    widths, counts = _multiply_accumulates(backbone)
    return float(np.interp(width, widths, counts) / counts[-1])


@cache
def _multiply_accumulates(backbone: str) -> tuple[list[float], list[int]]:
    widths = [number / 8 for number in range(2, 9)]
    image = torch.zeros(1, 3, SIDE, SIDE)
    return widths, [cost(Backbone(backbone, 3).build(width).eval(), image, 0)["macs"] for width in widths]


# --- time -----------------------------------------------------------------------------------------------------------


def makespan(hours: dict[RunStage, float], count: int) -> float:
    """Return the hours until all is done where a node that has room takes the job with the longest way to the end."""
    producers = {path: job for job in hours for path in job.outputs}
    before = {job: {producers[path] for path in job.inputs if path in producers} for job in hours}
    way: dict[RunStage, float] = {}
    for job in reversed(hours):
        way[job] = hours[job] + max((way[each] for each in hours if job in before[each]), default=0.0)
    free, now, waiting = [NODE] * (count // NODE), 0.0, sorted(hours, key=way.__getitem__, reverse=True)
    running: list[tuple[float, int, int, RunStage]] = []
    done: set[RunStage] = set()
    while waiting or running:
        for job in [job for job in waiting if before[job] <= done]:
            node = next((each for each, left in enumerate(free) if left >= job.gpus), None)
            if node is not None:
                free[node] -= job.gpus
                waiting.remove(job)
                heapq.heappush(running, (now + hours[job], len(waiting), node, job))
        now, _, node, job = heapq.heappop(running)
        free[node] += job.gpus
        done.add(job)
    return now


# --- bytes ----------------------------------------------------------------------------------------------------------


def checkpoint_bytes(job: RunStage) -> int:
    return 4 * _elements(job)[0] if job.stage == "pretrain" else 0


def state_bytes(job: RunStage) -> int:
    """Return the bytes of what a training goes on from: weights, their momentum, and the momentum encoder."""
    return 4 * sum(_elements(job)) if job.stage == "pretrain" else 0


def network_bytes(job: RunStage) -> int:
    """Return the bytes of the calibrated networks, or of the fine-tuned ones."""
    if job.stage not in ("calibrate", "finetune"):
        return 0
    networks = [Backbone(job.run.backbone, 3).build(width) for width in job.run.widths]
    return sum(4 * tensor.numel() for network in networks for tensor in network.state_dict().values())


def _elements(job: RunStage) -> tuple[int, int, int]:
    """Count the numbers in the weights, in the optimizer's momentum and in the momentum encoder."""
    settings = job.run.run
    assert isinstance(settings, PretrainRun)
    student = build_student(settings, Backbone(job.run.backbone, 3), 1000, 0, torch.device("cpu"))
    count, encoder = student.weights.values.numel(), student.encoder_size
    return count, count, encoder if settings.method.momentum is not None else 0


if __name__ == "__main__":
    main()
