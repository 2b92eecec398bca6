"""`us3l publish` and `us3l fetch`: what DVC keeps of studies, carried to a remote and back, and nothing but whole."""

import time
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from us3l.pipeline.dvc import dvc_targets, locked_entries
from us3l.pipeline.dvc_file import listed_stages
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.storage.objects import download, has_size_of, is_whole, missing, upload
from us3l.pipeline.storage.remote import Remote, dvc_project, open_remote
from us3l.pipeline.verify.levels import DIFFERS, verify
from us3l.pipeline.verify.selection import of_studies
from us3l.utils.errors import UserError

Objects = dict[str, str]  # by the name of an object, the file or folder whose content it is


def fetch(plan: Plan, studies: list[str], remote_name: str | None) -> int:
    """Bring the data and weights of studies from a remote, verify the studies' files, and return verify's exit code.

    Raises UserError, and leaves all files of the project as they were, unless all comes whole.
    """
    stages, start = _recorded_stages(plan, studies), time.monotonic()
    with dvc_project() as repo:
        remote, cache = open_remote(repo, remote_name), repo.cache.local
        outputs = _outputs(repo, stages)
        came = _download(remote, cache, outputs)
        content = _content(cache, outputs)
        came += _download(remote, cache, content)
        _put_in_place(repo, stages)
        _tell(f"fetched {', '.join(studies)} from {remote.name}", cache, came, outputs | content, start)
    return verify(of_studies(plan, studies), 1)


def publish(plan: Plan, studies: list[str], remote_name: str | None, read_back: bool) -> None:
    """Copy the data and weights of studies to a remote, after verifying the studies' files.

    read_back: read what is there already to its end, instead of comparing its size, and replace what is damaged.
    Raises UserError where the files differ from their records, and where the remote fails.
    """
    stages = _recorded_stages(plan, studies)
    with dvc_project() as repo:
        remote, cache = open_remote(repo, remote_name), repo.cache.local
        if verify(of_studies(plan, studies), 1) == DIFFERS:
            raise UserError("nothing is published, because the files differ from what is recorded, as is said above")
        start = time.monotonic()
        outputs = _require_cached(cache, _outputs(repo, stages))
        content = _require_cached(cache, _content(cache, outputs))

        def is_there(oid: str) -> bool:
            return is_whole(remote.objects, oid) if read_back else has_size_of(remote.objects, cache, oid)

        went = [oid for objects in (content, outputs) for oid in upload(remote, cache, [*objects], is_there)]
        _tell(f"published {', '.join(studies)} to {remote.name}", cache, went, outputs | content, start)


def _recorded_stages(plan: Plan, studies: list[str]) -> list[str]:
    """Return the studies' stages of dvc.yaml. Raises UserError unless DVC has recorded all of them."""
    for study in studies:
        plan.require_study(study)
    stages = list(dict.fromkeys(job.dvc_stage for job in jobs(plan, studies)))
    recorded = listed_stages() & locked_entries().keys()
    if lacking := [stage for stage in stages if stage not in recorded]:
        what = f"dvc.yaml or dvc.lock lacks {len(lacking)} of {len(stages)} stages, such as {lacking[0]}"
        raise UserError(f"{what}; `us3l dvc` and `us3l commit`, with the study under build, record what is made")
    return stages


def _outputs(repo: Repo, stages: list[str]) -> Objects:
    """Return the objects that dvc.lock names: one for each file, and for each folder one that lists its files."""
    wanted = set(stages)
    outputs = [output for stage in repo.index.stages if stage.addressing in wanted for output in stage.outs]
    return {output.hash_info.value: str(output) for output in outputs if output.use_cache}


def _content(cache: HashFileDB, outputs: Objects) -> Objects:
    """Return the objects of the files in folders, by what the objects of the folders list."""
    folders = {oid: name for oid, name in outputs.items() if oid.endswith(".dir")}
    return {
        info.value: "/".join([name, *key])
        for oid, name in folders.items()
        for key, _, info in Tree.load(cache, HashInfo(cache.hash_name, oid))
    }


def _download(remote: Remote, cache: HashFileDB, objects: Objects) -> list[str]:
    """Bring what a cache lacks, and return it. Raises UserError unless all of it comes whole."""
    wanted = missing(cache, objects)
    if wrong := download(remote, cache, wanted):
        oid = next(iter(wrong))
        what = f"the remote {remote.name}: {len(wrong)} of {len(objects)} objects are not whole"
        example = f"such as {remote.objects.oid_to_path(oid)} of {objects[oid]}, which is {wrong[oid]}"
        remedy = "where the results are whole, `us3l publish --read-back` mends them"
        raise UserError(f"{what}, {example}; no file was changed here; {remedy}")
    return wanted


def _put_in_place(repo: Repo, stages: list[str]) -> None:
    try:
        repo.checkout(dvc_targets(stages, listed_stages()))
    except DvcException as error:
        raise UserError(f"all has come, but DVC does not put it in place: {' '.join(str(error).split())}") from None


def _require_cached(cache: HashFileDB, objects: Objects) -> Objects:
    if lacking := missing(cache, objects):
        what = f"DVC's cache lacks {len(lacking)} of {len(objects)} objects, such as that of {objects[lacking[0]]}"
        raise UserError(f"{what}; `us3l commit` puts them there")
    return objects


def _tell(what: str, cache: HashFileDB, carried: list[str], objects: Objects, start: float) -> None:
    megabytes = sum(Path(cache.oid_to_path(oid)).stat().st_size for oid in carried) / 1e6
    seconds = time.monotonic() - start
    print(f"us3l: {what}: {len(carried)} of {len(objects)} objects, {megabytes:.1f} MB, {seconds:.1f} s")
