from us3l.stand_in import log


def evaluate_networks(plan):
    log("finetune", plan.name)
    return 10
