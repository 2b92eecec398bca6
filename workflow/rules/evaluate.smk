# Evaluation: one job settles the statistics, one trains the classifiers, of all widths of a run with one seed.
# A run has its own widths, and so its own output files: hence one rule a run.

for run in PLAN.runs.values():

    rule:
        name:
            f"calibrate_{run.study}_{run.name}"
        input:
            run.data.files,
            run.checkpoint("{seed}"),
        output:
            run.networks("{seed}"),
        log:
            f"logs/calibrate/{run.study}/{run.name}/seed{{seed}}.log",
        benchmark:
            f"logs/calibrate/{run.study}/{run.name}/seed{{seed}}.jsonl"
        wildcard_constraints:
            seed="|".join(map(str, run.seeds)),
        conda:
            "../envs/us3l.yaml"
        threads: run.run.resources.threads
        resources:
            gpu=min(1, run.run.resources.gpus),
            mem_mb=run.run.resources.memory_mb,
        params:
            recipe=run.recipe("calibrate"),
            code=code("calibrate"),
            run=f"{run.study} {run.name}",
        message:
            f"Calibrating {run.study} {run.name}, seed {{wildcards.seed}}"
        shell:
            "us3l calibrate {params.run} {wildcards.seed}" " --gpus {resources.gpu} --threads {threads} > {log} 2>&1"

    rule:
        name:
            f"linear_{run.study}_{run.name}"
        input:
            run.data.files,
            run.networks("{seed}"),
        output:
            run.evaluations("{seed}"),
        log:
            f"logs/linear/{run.study}/{run.name}/seed{{seed}}.log",
        benchmark:
            f"logs/linear/{run.study}/{run.name}/seed{{seed}}.jsonl"
        wildcard_constraints:
            seed="|".join(map(str, run.seeds)),
        conda:
            "../envs/us3l.yaml"
        threads: run.run.resources.threads
        resources:
            gpu=min(1, run.run.resources.gpus),
            mem_mb=run.run.resources.memory_mb,
        params:
            recipe=run.recipe("linear"),
            code=code("linear"),
            run=f"{run.study} {run.name}",
        message:
            f"Linear evaluation of {run.study} {run.name}, seed {{wildcards.seed}}"
        shell:
            "us3l linear {params.run} {wildcards.seed}" " --gpus {resources.gpu} --threads {threads} > {log} 2>&1"
