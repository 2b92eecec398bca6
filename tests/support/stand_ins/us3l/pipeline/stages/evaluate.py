import numpy as np

from us3l.evaluation.metrics import wilson
from us3l.evaluation.predictions import encode
from us3l.pipeline.identity import fingerprint
from us3l.pipeline.provenance import record
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.stand_in import data, save
from us3l.utils.records import read_weights, write_record


def evaluate(job, device, evaluate_networks, logits_folder=None):
    """Accuracies below what `evaluate_networks` returns, that follow from the networks and the params."""
    run, scale, seals = job.run, evaluate_networks(job.run), {}
    for path in run.networks(job.seed):
        about = read_weights(path)[1]
        seals |= {path: about["seal"], run.checkpoint(job.seed): about["checkpoint"]}
    for path, identity in job.identities(OpenedSeals(data(run), seals)).items():
        top1 = int(fingerprint(identity)[:6], 16) % scale
        kept = {}
        if run.classifiers(job.seed):
            about = {**identity, "image": [1, 4, 4], "prepared_size": None, "classes": ["one"]}
            kept["classifier"] = save(run.classifier(job.seed, identity["width"]), b"trained", about)
        write_record(path, {**job.titles, **accuracy(top1), **kept, **record(identity, None, 36.0)})


def accuracy(top1):
    """What the record of an evaluation says where so many of 100 images are of the first class, as all are."""
    facts = {
        "top1": top1,
        "top5": None,
        "interval": wilson(top1, 100),
        "n": 100,
        "parameters": 0,
        "macs": 0,
        "image": [1, 4, 4],
    }
    return {**facts, "image": [1, 4, 4], "predictions": encode(np.arange(100) >= top1)}
