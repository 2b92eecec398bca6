# Exports: from networks to folders that run without us3l. Each has other files: hence a rule for each.

for (study, name), export in PLAN.exports.items():

    rule:
        name:
            f"export_{study}_{name}"
        input:
            lambda w, study=study, name=name: inputs_of(f"export {study} {name} {w.seed}"),
        output:
            ExportJob(export, "{seed}").outputs,
        log:
            f"logs/export/{study}/{name}/seed{{seed}}.log",
        wildcard_constraints:
            seed=r"\d+",
        conda:
            "../envs/us3l.yaml"
        threads: export.run.run.resources.threads
        resources:
            gpu=min(1, export.run.run.resources.gpus),
            cpus_per_gpu=export.run.run.resources.threads,
            mem_mb=export.run.run.resources.memory_mb,
        params:
            export=f"{study} {name}",
        message:
            f"Exporting {study} {name}, seed {{wildcards.seed}}"
        shell:
            f"{KEEP_LOG}us3l export {{params.export}} {{wildcards.seed}} --gpus {{resources.gpu}} --threads {{threads}}"
