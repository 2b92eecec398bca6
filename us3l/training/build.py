"""Assembly of a run's training step."""

from us3l.models.backbones.backbone import Backbone
from us3l.params.runs import PretrainRun
from us3l.training.micro_batches import Encoder, MicroBatching, micro_batching_on
from us3l.training.optimizers import OPTIMIZERS
from us3l.training.queue import Queue
from us3l.training.step import TrainStep
from us3l.training.student import build_student
from us3l.training.teacher import Teacher
from us3l.utils.distributed import World


def build_train_step(
    run: PretrainRun,
    backbone: Backbone,
    classes: int,
    seed: int,
    world: World,
    frozen: Encoder | None = None,
    micro_batching: MicroBatching | None = None,
) -> TrainStep:
    """Build a run's step on this process's device, with weights as the seed initializes them.

    classes: number of classes of the images; frozen: the encoder of a method that names a teacher; micro_batching: by
    default the one for the device.
    """
    method, device = run.method, world.device
    micro_batching = micro_batching or micro_batching_on(device, run, backbone)
    student = build_student(run, backbone, classes, seed, device)
    queue = Queue(method.queue, method.projector.output, seed, device) if method.queue else None
    teacher = Teacher(run, student, micro_batching, world.all_reduce_, queue, frozen)
    optimizer = OPTIMIZERS[run.optimizer.kind](run.optimizer, student.weights.values, student.weights.sizes)
    return TrainStep(run, student, teacher, optimizer, micro_batching, world.all_reduce_)
