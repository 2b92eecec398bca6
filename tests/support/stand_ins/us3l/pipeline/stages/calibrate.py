from us3l.params.sampling import width_label
from us3l.pipeline.provenance import fingerprint, identify, record
from us3l.stand_in import data, log, save, seal
from us3l.utils.records import write_record


def calibrate(plan, seed, device):
    log("calibrate", plan.name)
    origin = {"data": data(plan), "checkpoint": seal(plan.checkpoint(seed)), "seed": seed}
    identity = identify("calibrate", plan.recipe("calibrate"), **origin)
    content = fingerprint(identity).encode()
    seals = {
        width_label(width): save(plan.network(seed, width), content, {**identity, "width": width})
        for width in plan.widths
    }
    write_record(plan.calibration(seed), {**record(identity, None, 36.0), "networks": seals})
