from us3l.params.sampling import width_label
from us3l.pipeline.identity import fingerprint
from us3l.pipeline.provenance import record
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.stand_in import data, log, save, seal
from us3l.utils.records import write_record


def calibrate(job, device):
    run = job.run
    log("calibrate", run.name)
    checkpoint = run.checkpoint(job.seed)
    [identity] = job.identities(OpenedSeals(data(run), {checkpoint: seal(checkpoint)})).values()
    content = fingerprint(identity).encode()
    seals = {}
    for width in run.widths:
        architecture = {"backbone": run.backbone, "width": shape(run, width), "in_channels": run.data.dataset.channels}
        about = {**identity, "width": width, "architecture": architecture}
        seals[width_label(width)] = save(run.network(job.seed, width), content, about)
    write_record(job.record, {**record(identity, None, 36.0), "networks": seals})


def shape(run, width):
    """The width of the architecture: that of the widest network for a pruned one."""
    return 1.0 if run.run.kind == "prune" else width
