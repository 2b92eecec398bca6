# The plan: what each stage of dvc.yaml depends on besides its input files. After an edit of comments, it alone is made
# again, and with it DVC records what a Snakemake has made that was killed.


SOURCES = [*PLAN.files, *sorted(Path("us3l").rglob("*.py"))]
SOURCES += sorted({path for run in PLAN.runs.values() for path in run.network_files})
date_no_later_than_now(SOURCES)
IS_PLAN_OLD = workflow.is_main_process and PLAN_FILE.is_file() and (UNRECORDED.is_file() or not is_plan_written(PLAN))


rule plan:
    input:
        [str(path) for path in SOURCES],
        OUTDATED if IS_PLAN_OLD else [],
    output:
        str(PLAN_FILE),
    log:
        "logs/plan.log",
    localrule: True
    conda:
        "../envs/us3l.yaml"
    threads: 1
    message:
        f"Writing the plan{WHERE_TO_LOOK}"
    shell:
        f"{KEEP_LOG}us3l plan --write"
