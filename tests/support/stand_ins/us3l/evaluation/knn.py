from us3l.stand_in import log


def evaluate_networks(plan):
    log("knn", plan.name)
    return 10
