from us3l.stand_in import log


def answers(plan):
    log("finetune", plan.name)
    return 10
