from us3l.provenance import fingerprint, identify, record
from us3l.records import write_record
from us3l.stand_in import data, log, save


def pretrain(plan, seed, world, runs, save_every):
    log("pretrain", plan.name)
    identity = identify("pretrain", plan.recipe("pretrain"), data=data(plan), seed=seed)
    seal = save(plan.checkpoint(seed), fingerprint(identity).encode(), identity)
    write_record(plan.training(seed), {**record(identity, None, 3600.0), "checkpoint": seal, "epochs": []})
