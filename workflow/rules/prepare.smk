# Data: from a source to arrays on disk.


rule prepare:
    output:
        [f"data/{{dataset}}/{file.name}" for file in next(iter(PLAN.datasets.values())).files],
    wildcard_constraints:
        dataset="|".join(PLAN.datasets),
    params:
        recipe=lambda wildcards: PLAN.dataset(wildcards.dataset).recipe,
        code=code("prepare"),
    log:
        "logs/prepare/{dataset}.log",
    benchmark:
        "logs/prepare/{dataset}.jsonl"
    threads: 1
    resources:
        mem_mb=1500,
    message:
        "Preparing {wildcards.dataset}"
    shell:
        "us3l prepare {wildcards.dataset} --params {PARAMS} > {log} 2>&1"
