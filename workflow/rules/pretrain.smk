# Pretraining: from images to the weights of the widest network.


rule pretrain:
    input:
        lambda w: inputs_of(f"pretrain {w.study} {w.run} {w.seed}"),
    output:
        checkpoint="results/{study}/checkpoints/{run}/seed{seed}.safetensors",
        record="results/{study}/pretrain/{run}/seed{seed}.json",
    log:
        "logs/pretrain/{study}/{run}/seed{seed}.log",
    wildcard_constraints:
        study="|".join({study for study, _ in PLAN.runs}),
        run="|".join({run.name for run in PLAN.runs.values() if "pretrain" in run.stages}),
        seed=r"\d+",
    conda:
        "../envs/us3l.yaml"
    threads: lambda w: run_of(w).run.resources.threads
    resources:
        gpu=lambda w: JOBS[f"pretrain {w.study} {w.run} {w.seed}"].gpus,
        cpus_per_gpu=lambda w: run_of(w).run.resources.threads,
        mem_mb=lambda w: run_of(w).run.resources.memory_mb,
        runtime=lambda w, attempt: minutes_of(f"pretrain {w.study} {w.run} {w.seed}", attempt),
    message:
        f"Pretraining {{wildcards.study}} {{wildcards.run}}, seed {{wildcards.seed}}{WHERE_TO_LOOK}"
    shell:
        f"{KEEP_LOG}us3l pretrain {{wildcards.study}} {{wildcards.run}} {{wildcards.seed}}"
        " --gpus {resources.gpu} --threads {threads}"
