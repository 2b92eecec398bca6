# Reports: from evaluations to tables.


rule table:
    input:
        lambda w: inputs_of(f"table {w.study} {w.table}"),
    output:
        [f"results/{{study}}/tables/{{table}}.{suffix}" for suffix in TABLE_FORMATS],
    log:
        "logs/table/{study}/{table}.log",
    wildcard_constraints:
        study="|".join({study for study, _ in PLAN.tables}),
        table="|".join({table for _, table in PLAN.tables}),
    localrule: True
    conda:
        "../envs/us3l.yaml"
    threads: 1
    message:
        "Writing the table {wildcards.study} {wildcards.table}" + WHERE_TO_LOOK
    shell:
        "us3l table {wildcards.study} {wildcards.table} > {log} 2>&1"
