from us3l.stand_in import log


def evaluate_networks(plan):
    log("features-linear", plan.name)
    return 10
