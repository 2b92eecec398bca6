# Pretraining: from images to the weights of the widest network. `exec`: a signal to the process group finds no shell
# that would end before the training has saved.
# A run of several nodes asks Slurm for a task and as many GPUs on each; by `mpi`, its plugin leaves srun to the command.


on_nodes = lambda resource: lambda w: (resource(run_of(w).run.resources) if run_of(w).run.resources.nodes > 1 else None)


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
        nodes=lambda w: run_of(w).run.resources.nodes,
        mpi=on_nodes(lambda asked: "srun"),
        tasks=on_nodes(lambda asked: asked.nodes),
        tasks_per_gpu=on_nodes(lambda asked: 0),
        gres=on_nodes(lambda asked: f"gpu:{asked.gpus // asked.nodes}" if asked.gpus else None),
        cpus_per_gpu=lambda w: run_of(w).run.resources.threads,
        mem_mb=lambda w: run_of(w).run.resources.memory_mb,
        runtime=lambda w, attempt: minutes_of(f"pretrain {w.study} {w.run} {w.seed}", attempt),
    message:
        f"Pretraining {{wildcards.study}} {{wildcards.run}}, seed {{wildcards.seed}}{WHERE_TO_LOOK}"
    shell:
        f"{KEEP_LOG}exec us3l pretrain {{wildcards.study}} {{wildcards.run}} {{wildcards.seed}}"
        " --gpus {resources.gpu} --nodes {resources.nodes} --threads {threads}"
