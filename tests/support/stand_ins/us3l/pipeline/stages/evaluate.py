from us3l.pipeline.provenance import fingerprint, identify, record
from us3l.stand_in import data
from us3l.utils.records import read_weights, write_record


def evaluate(plan, seed, device, predict_logits):
    """Accuracies below what `predict_logits` returns, that follow from the networks and the recipe."""
    kind, scale = plan.protocol.kind, predict_logits(plan)
    for width in plan.widths:
        about = read_weights(plan.network(seed, width))[1]
        origin = {"data": data(plan), "checkpoint": about["checkpoint"], "network": about["seal"]}
        identity = identify(kind, plan.recipe(kind), **origin, seed=seed, width=width)
        top1 = int(fingerprint(identity)[:6], 16) % scale
        write_record(plan.evaluation(seed, width), {"top1": top1, "n": 1, **record(identity, None, 36.0)})
