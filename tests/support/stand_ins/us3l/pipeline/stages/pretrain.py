from us3l.pipeline.identity import fingerprint
from us3l.pipeline.provenance import record
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.stand_in import data, log, save, seal
from us3l.utils.records import write_record


def pretrain(job, world, runs, save_every, status):
    run = job.run
    log("pretrain", run.name)
    teacher = [run.weights_from.checkpoint(job.seed)] if run.weights_from else []
    [identity] = job.identities(OpenedSeals(data(run), {path: seal(path) for path in teacher})).values()
    sealed = save(run.checkpoint(job.seed), fingerprint(identity).encode(), identity)
    write_record(job.record, {**record(identity, None, 3600.0), "checkpoint": sealed, "epochs": []})
