# The plan: what each stage of dvc.yaml depends on besides its input files. It is written again when its content changes.


rule plan:
    input:
        OUTDATED if PLAN_FILE.is_file() and not is_plan_written(PLAN) else [],
    output:
        str(PLAN_FILE),
    log:
        "logs/plan.log",
    localrule: True
    conda:
        "../envs/us3l.yaml"
    threads: 1
    message:
        "Writing the plan"
    shell:
        "us3l plan --write > {log} 2>&1"
