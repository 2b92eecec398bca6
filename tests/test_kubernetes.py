"""The Containerfile and the manifests of Kubernetes: valid by its schemas, and of one piece."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pod
import pytest
from project import ROOT

from us3l.params.reading import load
from us3l.pipeline.plan.plan import Plan, jobs

VERSIONS = ("1.29", "1.33", "1.37")
NAMES = ("volume", "desk", "study")


def test_each_manifest_is_validated() -> None:
    assert {path.stem for path in pod.MANIFESTS} == set(NAMES)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_is_valid_by_the_published_schema(name: str, version: str) -> None:
    assert kubernetes_validate.validate(pod.read(name), version, strict=True) == version


PLANTED: dict[str, Callable[[Any], Any]] = {
    "a word misspelt": lambda job: job["spec"].update(backofLimit=2),
    "a number for a text": lambda job: pod.pod(job).update(restartPolicy=3),
    "an unknown key of a container": lambda job: pod.pod(job)["containers"][0].update(argv=[]),
    "a condition without its status": lambda job: job["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0].pop(
        "status"
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_found(error: str) -> None:
    study = pod.read("study")
    PLANTED[error](study)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(study, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", ["desk", "study"])
def test_pods_work_as_the_user_and_in_the_folder_of_the_image_on_the_volume(name: str) -> None:
    spec = pod.pod(pod.read(name))
    [container] = spec["containers"]
    [folder] = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "project"]
    [claim] = [each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if each["name"] == "project"]
    assert str(spec["securityContext"]["runAsUser"]) == pod.instruction("USER")
    assert folder == pod.instruction("WORKDIR")
    assert claim == pod.read("volume")["metadata"]["name"]


def test_the_study_asks_for_files_that_params_yaml_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = Plan(load(Path("params.yaml")))
    planned = {path for job in jobs(plan, plan.studies) for path in job.outputs}
    assert {Path(target) for target in pod.targets()} <= planned


def test_the_image_takes_the_lock_file_first_so_that_an_edit_of_code_installs_no_packages_again() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    steps = ["COPY requirements.lock", "--requirement /opt/us3l/requirements.lock", "COPY . ", "--no-deps"]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
