from us3l.stand_in import evaluate, log


def features_linear(plan, seed, device):
    log("features-linear", plan.name)
    evaluate(plan, seed, 10)
