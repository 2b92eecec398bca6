# Pretraining: from images to the weights of the widest network.


def planned(wildcards):
    return PLAN.run(wildcards.study, wildcards.run)


rule pretrain:
    input:
        lambda wildcards: planned(wildcards).data.files,
    output:
        checkpoint="results/{study}/checkpoints/{run}/seed{seed}.safetensors",
        history="results/{study}/checkpoints/{run}/seed{seed}.json",
    wildcard_constraints:
        study="|".join({study for study, _ in PLAN.runs}),
        run="|".join({run for _, run in PLAN.runs}),
        seed=r"\d+",
    params:
        recipe=lambda wildcards: planned(wildcards).recipe("pretrain"),
        code=code("pretrain"),
    log:
        "logs/pretrain/{study}/{run}/seed{seed}.log",
    benchmark:
        "logs/pretrain/{study}/{run}/seed{seed}.jsonl"
    threads: lambda wildcards: planned(wildcards).run.resources.threads
    resources:
        gpu=lambda wildcards: planned(wildcards).run.resources.gpus,
        mem_mb=lambda wildcards: planned(wildcards).run.resources.memory_mb,
    message:
        "Pretraining {wildcards.study} {wildcards.run}, seed {wildcards.seed}"
    shell:
        "us3l pretrain {wildcards.study} {wildcards.run} {wildcards.seed} --params {PARAMS}"
        " --gpus {resources.gpu} --threads {threads} > {log} 2>&1"
