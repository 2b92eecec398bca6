# Data: from a source to arrays on disk.


rule prepare:
    input:
        lambda w: inputs_of(f"prepare {w.dataset}"),
    output:
        [f"data/{{dataset}}/{name}" for name in (*FILES, "prepare.json")],
    log:
        "logs/prepare/{dataset}.log",
    wildcard_constraints:
        dataset="|".join(PLAN.datasets),
    conda:
        "../envs/us3l.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    message:
        f"Preparing {{wildcards.dataset}}{WHERE_TO_LOOK}"
    shell:
        f"{KEEP_LOG}us3l prepare {{wildcards.dataset}}"
