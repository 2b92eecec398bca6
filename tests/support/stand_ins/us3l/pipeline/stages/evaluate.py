from us3l.pipeline.identity import fingerprint
from us3l.pipeline.provenance import record
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.stand_in import data, save
from us3l.utils.records import read_weights, write_record


def evaluate(job, device, evaluate_networks):
    """Accuracies below what `evaluate_networks` returns, that follow from the networks and the params."""
    run, scale, seals = job.run, evaluate_networks(job.run), {}
    for path in run.networks(job.seed):
        about = read_weights(path)[1]
        seals |= {path: about["seal"], run.checkpoint(job.seed): about["checkpoint"]}
    for path, identity in job.identities(OpenedSeals(data(run), seals)).items():
        top1 = int(fingerprint(identity)[:6], 16) % scale
        kept = {}
        if run.classifiers(job.seed):
            kept["classifier"] = save(run.classifier(job.seed, identity["width"]), b"trained", identity)
        write_record(path, {"top1": top1, "n": 1, **kept, **record(identity, None, 36.0)})
