# Evaluation: one job settles the statistics, one trains the classifiers, of all widths of a run with one seed.
# Runs of other widths have other output files: hence a rule for each group of runs with the same widths.

for group, runs in PLAN.groups().items():
    of_group = replace(runs[0], study="{study}", name="{run}")

    rule:
        name:
            f"calibrate_{group}"
        input:
            lambda w: run_of(w).inputs("calibrate", w.seed),
        output:
            of_group.outputs("calibrate", "{seed}"),
        log:
            "logs/calibrate/{study}/{run}/seed{seed}.log",
        benchmark:
            "logs/calibrate/{study}/{run}/seed{seed}.jsonl"
        wildcard_constraints:
            study=runs[0].study,
            run="|".join(run.name for run in runs),
            seed=r"\d+",
        conda:
            "../envs/us3l.yaml"
        threads: lambda w: run_of(w).run.resources.threads
        resources:
            gpu=lambda w: min(1, run_of(w).run.resources.gpus),
            mem_mb=lambda w: run_of(w).run.resources.memory_mb,
        params:
            recipe=lambda w: run_of(w).recipe("calibrate"),
            code=fingerprint(code("calibrate")),
        message:
            "Calibrating {wildcards.study} {wildcards.run}, seed {wildcards.seed}"
        shell:
            "us3l calibrate {wildcards.study} {wildcards.run} {wildcards.seed}"
            " --gpus {resources.gpu} --threads {threads} > {log} 2>&1"

    rule:
        name:
            f"linear_{group}"
        input:
            lambda w: run_of(w).inputs("linear", w.seed),
        output:
            of_group.outputs("linear", "{seed}"),
        log:
            "logs/linear/{study}/{run}/seed{seed}.log",
        benchmark:
            "logs/linear/{study}/{run}/seed{seed}.jsonl"
        wildcard_constraints:
            study=runs[0].study,
            run="|".join(run.name for run in runs),
            seed=r"\d+",
        conda:
            "../envs/us3l.yaml"
        threads: lambda w: run_of(w).run.resources.threads
        resources:
            gpu=lambda w: min(1, run_of(w).run.resources.gpus),
            mem_mb=lambda w: run_of(w).run.resources.memory_mb,
        params:
            recipe=lambda w: run_of(w).recipe("linear"),
            code=fingerprint(code("linear")),
        message:
            "Linear evaluation of {wildcards.study} {wildcards.run}, seed {wildcards.seed}"
        shell:
            "us3l linear {wildcards.study} {wildcards.run} {wildcards.seed}"
            " --gpus {resources.gpu} --threads {threads} > {log} 2>&1"
