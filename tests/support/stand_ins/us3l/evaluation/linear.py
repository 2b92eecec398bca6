from us3l.stand_in import log

SCALE = 100


def evaluate_networks(plan):
    log("linear", plan.name)
    return SCALE
