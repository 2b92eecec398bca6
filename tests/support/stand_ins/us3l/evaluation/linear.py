from us3l.stand_in import log

SCALE = 100


def predict_logits(plan):
    log("linear", plan.name)
    return SCALE
