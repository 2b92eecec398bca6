# Reports: from evaluations to tables.


rule table:
    input:
        lambda wildcards: PLAN.table(wildcards.study, wildcards.table).evaluations,
    output:
        [f"results/{{study}}/tables/{{table}}.{suffix}" for suffix in TABLE_FORMATS],
    wildcard_constraints:
        study="|".join({study for study, _ in PLAN.tables}),
        table="|".join({table for _, table in PLAN.tables}),
    params:
        recipe=lambda wildcards: PLAN.table(wildcards.study, wildcards.table).recipe,
        code=code("table"),
    log:
        "logs/table/{study}/{table}.log",
    benchmark:
        "logs/table/{study}/{table}.jsonl"
    localrule: True
    threads: 1
    message:
        "Writing the table {wildcards.study} {wildcards.table}"
    shell:
        "us3l table {wildcards.study} {wildcards.table} --params {PARAMS} > {log} 2>&1"
