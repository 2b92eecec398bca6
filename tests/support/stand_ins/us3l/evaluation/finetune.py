from us3l.stand_in import log


def predict_logits(plan):
    log("finetune", plan.name)
    return 10
