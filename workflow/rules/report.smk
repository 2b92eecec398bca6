# Reports: from evaluations to tables and figures.


rule table:
    input:
        lambda w: inputs_of(f"table {w.study} {w.table}"),
    output:
        [f"results/{{study}}/tables/{{table}}.{suffix}" for suffix in TABLE_FORMATS if suffix != "html"],
        report(
            "results/{study}/tables/{table}.html",
            category="{study}",
            subcategory="Tables",
            labels={"table": "{table}"},
            caption="../report/table.rst",
        ),
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
        f"Writing the table {{wildcards.study}} {{wildcards.table}}{WHERE_TO_LOOK}"
    shell:
        f"{KEEP_LOG}us3l table {{wildcards.study}} {{wildcards.table}}"


rule figure:
    input:
        lambda w: inputs_of(f"figure {w.study} {w.figure}"),
    output:
        "results/{study}/figures/{figure}.png",
        "results/{study}/figures/{figure}.json",
        report(
            "results/{study}/figures/{figure}.svg",
            category="{study}",
            subcategory="Figures",
            labels={"figure": "{figure}"},
            caption="../report/figure.rst",
        ),
    log:
        "logs/figure/{study}/{figure}.log",
    wildcard_constraints:
        study="|".join({study for study, _ in PLAN.figures}),
        figure="|".join({figure for _, figure in PLAN.figures}),
    localrule: True
    conda:
        "../envs/us3l.yaml"
    threads: 1
    message:
        "Drawing {wildcards.study} {wildcards.figure}"
    shell:
        f"{KEEP_LOG}us3l figure {{wildcards.study}} {{wildcards.figure}}"
