from us3l.stand_in import evaluate, log


def knn(plan, seed, device):
    log("knn", plan.name)
    evaluate(plan, seed, 10)
