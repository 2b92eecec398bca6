# Calibration and evaluation: one job calibrates, and one evaluates, all widths of a run with one seed.
# Runs of other widths have other output files: hence a rule for each stage of each group of runs with the same widths.

ACTIONS = {"calibrate": "Calibrating", **{kind: protocol.action for kind, protocol in KINDS.items()}}


for (stage, group), runs in PLAN.groups().items():
    pattern = replace(runs[0], study="{study}", name="{run}")

    rule:
        name:
            f"{stage}_{group}"
        input:
            lambda w, stage=stage: inputs_of(f"{stage} {w.study} {w.run} {w.seed}"),
        output:
            RunStage(pattern, stage, "{seed}").outputs,
        log:
            f"logs/{stage}/{{study}}/{{run}}/seed{{seed}}.log",
        wildcard_constraints:
            study=runs[0].study,
            run="|".join(run.name for run in runs),
            seed=r"\d+",
        conda:
            "../envs/us3l.yaml"
        threads: lambda w: run_of(w).run.resources.threads
        resources:
            gpu=lambda w, stage=stage: JOBS[f"{stage} {w.study} {w.run} {w.seed}"].gpus,
            cpus_per_gpu=lambda w: run_of(w).run.resources.threads,
            mem_mb=lambda w: run_of(w).run.resources.memory_mb,
            runtime=lambda w, attempt, stage=stage: minutes_of(f"{stage} {w.study} {w.run} {w.seed}", attempt),
        params:
            stage=stage,
        message:
            f"{ACTIONS[stage]} {{wildcards.study}} {{wildcards.run}}, seed {{wildcards.seed}}{WHERE_TO_LOOK}"
        shell:
            f"{KEEP_LOG}us3l {{params.stage}} {{wildcards.study}} {{wildcards.run}} {{wildcards.seed}}"
            " --gpus {resources.gpu} --threads {threads}"
