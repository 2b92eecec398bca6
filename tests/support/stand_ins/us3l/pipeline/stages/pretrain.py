from us3l.pipeline.provenance import fingerprint, identify, record
from us3l.stand_in import data, log, save, seal
from us3l.utils.records import write_record


def pretrain(plan, seed, world, runs, save_every):
    log("pretrain", plan.name)
    origin = {"data": data(plan), "seed": seed}
    if plan.source:
        origin["teacher"] = seal(plan.source.checkpoint(seed))
    identity = identify("pretrain", plan.recipe("pretrain"), **origin)
    sealed = save(plan.checkpoint(seed), fingerprint(identity).encode(), identity)
    write_record(plan.training(seed), {**record(identity, None, 3600.0), "checkpoint": sealed, "epochs": []})
