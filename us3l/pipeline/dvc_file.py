"""dvc.yaml: the stages of the studies that params.yaml builds, written from the plan.

A stage has all seeds of a run. Stages of one kind form a group: its `foreach` lists the runs, and for each run the
folders that it depends on if its name alone does not determine them.
"""

from pathlib import Path
from typing import Any

import yaml

from us3l.params.yaml_file import require_bounded
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError
from us3l.utils.reading import read_plain

MOST_BYTES = 2**26  # of dvc.lock, which grows with the runs
MOST_VALUES = 2_000_000
DVC_FILE = Path("dvc.yaml")
LOCK_FILE = Path("dvc.lock")
PLAN_FILE = Path("results", "plan.json")
COMMAND = "us3l make"
METRICS = ".metrics.yaml"  # the end of the files that DVC shows as metrics
HEADER = """\
# Written by `us3l dvc` from params.yaml: the jobs of the Snakefile for the studies under build, a run's seeds together.
# Snakemake does the work: `us3l make STAGE` asks it for the files of one stage. What a stage depends on besides its
# input files stands in results/plan.json.
# Every output persists: DVC does not delete it before a stage, so Snakemake keeps what is up to date.
"""


def write_dvc_file(plan: Plan) -> bool:
    """Write dvc.yaml, and return whether it changed; stages and keys that are not of this project stay in it.

    Raises UserError where the present file is not readable.
    """
    present = read_stages(DVC_FILE)
    others = {name: stage for name, stage in present.pop("stages", {}).items() if not _is_of_plan(stage)}
    stages = "\n".join(map(_indented, (expected_groups(plan) | others).items()))
    text = f"{HEADER}stages:\n{stages}" + (f"\n{_dump(present)}" if present else "")
    if DVC_FILE.is_file() and DVC_FILE.read_text(encoding="utf-8") == text:
        return False
    with atomic_write(DVC_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return True


def read_stages(path: Path) -> dict[str, Any]:
    """Read dvc.yaml or dvc.lock; a missing one has no stages.

    Raises UserError where it is not a YAML mapping with the mappings that DVC has there.
    """
    try:
        text = read_plain(path, MOST_BYTES).decode()
        require_bounded(text, MOST_VALUES)
        content = yaml.load(text, yaml.CSafeLoader) or {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable: {' '.join(str(error).split())}; mend or delete it") from None
    stages = content.get("stages", {}) if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise UserError(f"{path}: not a mapping with stages by their names; mend or delete it")
    if not all(isinstance(stage.get(key, {}), dict) for stage in stages.values() for key in ("do", "params")):
        raise UserError(f"{path}: has a stage whose do or params is no mapping; mend or delete it")
    return content


def listed_stages() -> set[str]:
    """Name the stages of dvc.yaml; none where the file is missing."""
    return set(_present())


def missing_stages(plan: Plan) -> list[str]:
    """Name the stages of the plan that dvc.yaml lacks, or has with other dependencies or outputs."""
    expected, present = _resolved(expected_groups(plan)), _present()
    return [name for name, stage in expected.items() if present.get(name) != stage]


def superfluous_stages(plan: Plan) -> list[str]:
    """Name the stages of this project in dvc.yaml that belong to no study under build."""
    expected, present = _resolved(expected_groups(plan)), _present()
    return [name for name, stage in present.items() if name not in expected and _is_of_plan(stage)]


def dvc_stages(plan: Plan) -> dict[str, list[Job]]:
    """Return the jobs of the studies to build, by their stage of dvc.yaml."""
    stages: dict[str, list[Job]] = {}
    for job in jobs(plan, plan.build):
        stages.setdefault(job.dvc_stage, []).append(job)
    return stages


def expected_groups(plan: Plan) -> dict[str, Any]:
    """Return the stages that dvc.yaml should have, as YAML reads them; stages of one kind form a group."""
    members: dict[str, dict[str, list[Job]]] = {}
    for name, stage_jobs in dvc_stages(plan).items():
        group, _, item = name.partition("@")
        members.setdefault(group, {})[item] = stage_jobs
    return {"plan": _plan_stage(plan)} | {group: _group(group, items) for group, items in members.items()}


def _plan_stage(plan: Plan) -> dict[str, Any]:
    networks = {path.parts[0] for run in plan.runs.values() for path in run.network_files}
    included = {name.rpartition("/")[0] or name for name in plan.included}
    output = {str(PLAN_FILE): {"cache": False, "persist": True}}
    code = ["us3l"] if Path("us3l").is_dir() else []
    dependencies = ["params.yaml", *code, *sorted(included | networks)]
    stage = {"cmd": f"{COMMAND} plan", "deps": dependencies, "outs": [output]}
    return stage if code else stage | {"always_changed": True}  # DVC does not see code that is installed elsewhere


def _group(name: str, members: dict[str, list[Job]]) -> dict[str, Any]:
    """Define a group: its `foreach` lists the items, with their dependencies if the names do not determine these.

    Each table of a study depends on what any of the tables reads.
    """
    dependencies = {item: _dependencies(stage_jobs) for item, stage_jobs in members.items()}
    if len({len(paths) for paths in dependencies.values()}) > 1:
        everything = list(dict.fromkeys(path for paths in dependencies.values() for path in paths))
        dependencies = dict.fromkeys(dependencies, everything)
    by_name = {item: [_named(path, item, "${item}") for path in paths] for item, paths in dependencies.items()}
    first = next(iter(by_name.values()))
    if all(paths == first for paths in by_name.values()):
        return {"foreach": list(members), "do": _definition(f"{name}@${{item}}", first, _outputs(members, "${item}"))}
    numbered = [f"${{item[{number}]}}" for number in range(len(first))]
    return {"foreach": dependencies, "do": _definition(f"{name}@${{key}}", numbered, _outputs(members, "${key}"))}


def _definition(stage: str, dependencies: list[str], outputs: dict[str, dict[str, bool]]) -> dict[str, Any]:
    definition = {
        "cmd": f"{COMMAND} {stage}",
        "deps": dependencies,
        "params": [{str(PLAN_FILE): [stage]}],
        "outs": [{path: how} for path, how in outputs.items() if not path.endswith(METRICS)],
        "metrics": [{path: how} for path, how in outputs.items() if path.endswith(METRICS)],
    }
    return {key: value for key, value in definition.items() if value}


def _dependencies(stage_jobs: list[Job]) -> list[str]:
    """List the folders that the jobs read; tables and figures depend on the whole folders of their study's stages."""
    folders = [path.parent for job in stage_jobs for path in job.inputs]
    if stage_jobs[0].stage in ("table", "figure"):
        study = stage_jobs[0].names[0]
        folders = [folder.parent if folder.parts[:2] == ("results", study) else folder for folder in folders]
    return list(dict.fromkeys(map(str, folders)))


def _outputs(members: dict[str, list[Job]], name: str) -> dict[str, dict[str, bool]]:
    """List what a stage writes, folders or files of a table or figure; DVC stores data and weights, git the rest."""
    item, stage_jobs = next(iter(members.items()))
    paths = [Path(*path.parts[: 2 if path.parts[0] == "data" else 4]) for path in stage_jobs[0].outputs]
    return {_named(str(path), item, name): _settings(path) for path in paths}


def _settings(path: Path) -> dict[str, bool]:
    is_for_dvc = path.parts[0] == "data" or path.parts[2] in ("checkpoints", "networks", "classifiers", "exports")
    return {"persist": True} if is_for_dvc else {"cache": False, "persist": True}


def _named(path: str, item: str, name: str) -> str:
    """Replace the item's name with `name` if it is the last part of the path."""
    folder, slash, last = path.rpartition("/")
    return f"{folder}{slash}{name}{last.removeprefix(item)}" if last.partition(".")[0] == item else path


def _present() -> dict[str, dict[str, Any]]:
    return _resolved(read_stages(DVC_FILE).get("stages", {}))


def _resolved(groups: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each stage by the name that DVC gives it, with its templates filled in."""
    stages: dict[str, dict[str, Any]] = {}
    for group, stage in groups.items():
        items = stage.get("foreach")
        if items is None:
            stages[group] = stage
        elif isinstance(items, dict | list):
            named = _by_key(items)
            stages |= {f"{group}@{key}": _filled(stage.get("do", {}), key, item) for key, item in named.items()}
    return stages


def _by_key(items: dict[Any, Any] | list[Any]) -> dict[str, Any]:
    """Return the items of a group by the names that DVC gives them: in a list that of a mapping is its place."""
    if isinstance(items, dict):
        return {str(key): item for key, item in items.items()}
    return {str(place if isinstance(item, list | dict) else item): item for place, item in enumerate(items)}


def _filled(value: Any, key: str, item: Any) -> Any:
    if isinstance(value, dict):
        return {_filled(name, key, item): _filled(each, key, item) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, key, item) for each in value]
    if not isinstance(value, str):
        return value
    for number, each in enumerate(item if isinstance(item, list) else []):
        value = value.replace(f"${{item[{number}]}}", str(each))
    return value.replace("${key}", key).replace("${item}", key)


def _is_of_plan(stage: dict[str, Any]) -> bool:
    command = stage.get("do", stage).get("cmd", "")
    return isinstance(command, str) and command.startswith(f"{COMMAND} ")


def _indented(item: tuple[str, Any]) -> str:
    name, stage = item
    return "".join(f"  {line}" for line in _dump({name: stage}).splitlines(keepends=True))


def _dump(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=116)
