from us3l.stand_in import log


def answers(plan):
    log("knn", plan.name)
    return 10
