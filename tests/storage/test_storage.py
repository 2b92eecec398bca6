"""`us3l publish` and `us3l fetch` over S3, SSH and HTTP on this machine: a clone gets all of it whole, or nothing.

What ends in a sentence runs in this process, all else in processes of its own.
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from checkout import SNAKEMAKE, Checkout, copy, lay_out
from remotes import BUCKET, S3, file_server, silent_server, ssh_server, sshd

from us3l.pipeline.storage.remote import FIRST_ANSWER

Command = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]

CHECKPOINT = Path("results/digits/checkpoints/us3l/seed0.safetensors")
SOON = 15 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # seconds until a sentence, longer where much runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The project as Snakemake has made it."""
    made = lay_out(tmp_path_factory.mktemp("finished") / "project")
    made.run(*SNAKEMAKE)
    return made


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    pytest.importorskip("moto", reason="moto, of the extra dev, is missing")
    pytest.importorskip("dvc_s3", reason="dvc-s3, of the extra remotes, is missing")
    import_module("s3fs")  # for seconds, which are not those until an answer
    server = S3()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, finished: Checkout, s3: S3) -> Checkout:
    """The project, published to S3."""
    made = copy(finished.folder, tmp_path_factory.mktemp("s3") / "project")
    made.environment |= s3.environment
    configure(made, url=f"s3://{BUCKET}/store", endpointurl=s3.url)
    made.commit()
    publish(made)
    return made


def configure(project: Checkout, file: str = "config", remote: str = "shared", **settings: str) -> None:
    """Write one of DVC's files of settings, with a remote that is the default one."""
    lines = ["[core]", f"remote = {remote}", "autostage = false", "analytics = false", f"['remote \"{remote}\"']"]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    (project.folder / ".dvc" / file).write_text("\n".join(lines))


def publish(project: Checkout, *options: str) -> str:
    return summary(project.run("us3l", "publish", *options))


def fetch(project: Checkout, *options: str) -> str:
    return summary(project.run("us3l", "fetch", *options))


def summary(output: str) -> str:
    [line] = [line for line in output.splitlines() if line.startswith("us3l: ")]
    return line


def cloned(project: Checkout, folder: Path) -> Checkout:
    project.git("clone", "--quiet", str(project.folder), str(folder))
    made = Checkout(folder)
    made.environment |= {name: value for name, value in project.environment.items() if name.startswith("AWS_")}
    return made


@pytest.fixture
def clone(tmp_path: Path, origin: Checkout) -> Checkout:
    """A clone of the project that is on S3, with nothing fetched."""
    return cloned(origin, tmp_path / "clone")


@pytest.fixture
def refused(us3l: Command, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Fetch; the one sentence that this ends in, soon, with all files as they were and no damaged object."""

    def fetch(project: Checkout) -> str:
        before, start = held(project), time.monotonic()
        monkeypatch.chdir(project.folder)
        for name in ("AWS_MAX_ATTEMPTS", *(name for name in project.environment if name.startswith("AWS_"))):
            monkeypatch.setenv(name, project.environment.get(name, "2"))
        code, output, error = us3l("fetch")
        seconds = time.monotonic() - start
        assert (code, output, error.count("\n")) == (2, "", 1) and error.startswith("us3l: "), output + error
        assert held(project) == before
        assert damaged(project) == []
        assert seconds < SOON
        return error

    return fetch


def held(project: Checkout) -> dict[Path, bytes]:
    """The files of the project that DVC or git track, without the folder's own name."""
    paths = [path for name in ("data", "results") for path in (project.folder / name).rglob("*") if path.is_file()]
    return {path.relative_to(project.folder): path.read_bytes() for path in paths}


def damaged(project: Checkout) -> list[Path]:
    """The objects of DVC's cache whose content is not what their names state."""
    cache = project.folder / ".dvc/cache/files/md5"
    names = {path: (path.parent.name + path.name).removesuffix(".dir") for path in cache.rglob("*") if path.is_file()}
    return [path for path, name in names.items() if hashlib.md5(path.read_bytes()).hexdigest() != name]


def place(project: Checkout) -> str:
    """Where cache and remotes have the checkpoint."""
    name = hashlib.md5((project.folder / CHECKPOINT).read_bytes()).hexdigest()
    return f"files/md5/{name[:2]}/{name[2:]}"


def test_a_clone_gets_all_of_it_over_s3_and_both_tools_have_nothing_to_do(clone: Checkout, origin: Checkout) -> None:
    assert "fetched digits from shared (s3://bucket/store): 23 of 23 objects" in fetch(clone)
    assert held(clone) == held(origin)
    assert clone.clean()
    assert "0 of 8 jobs to do" in clone.run("us3l", "plan")


@pytest.mark.skipif(not sshd(), reason="no sshd here; apt-get install openssh-server brings it")
def test_ssh_carries_it_and_what_it_stores_is_a_public_remote_over_http(
    finished: Checkout, tmp_path: Path, refused: Refused
) -> None:
    pytest.importorskip("dvc_ssh", reason="dvc-ssh, of the extra remotes, is missing")
    project = copy(finished.folder, tmp_path / "project")
    with ssh_server(tmp_path) as settings:
        configure(project, **settings)
        project.commit()
        publish(project)
        clone, other = (cloned(project, tmp_path / name) for name in ("clone", "other"))
        stored = tmp_path / "store" / place(project)
        stored.write_bytes(stored.read_bytes()[:-1])
        assert f"1 of 16 objects are not whole, such as {stored} of {CHECKPOINT}, which is damaged" in refused(clone)
        assert ": 1 of 23 objects" in publish(project)
        fetch(clone)
        assert clone.clean()

        configure(other, "config.local", keyfile=str(tmp_path / "stranger"))
        assert "Permission denied" in refused(other)
    assert "Connect call failed" in refused(other)

    with file_server(tmp_path / "store") as url:
        configure(other, "config.local", remote="public", url=url)
        fetch(other)
        stored.unlink()
        code, output = other.try_("us3l", "publish")
        assert code == 2 and "Unsupported method ('POST')" in output
    (other.folder / ".dvc/cache" / place(project)).unlink()
    assert "Cannot connect to host" in refused(other)


def test_objects_that_are_not_whole_are_not_taken_and_come_after_they_are_published_again(
    clone: Checkout, origin: Checkout, s3: S3, refused: Refused
) -> None:
    key = f"store/{place(origin)}"
    right = s3.read(key)
    one = f"1 of 16 objects are not whole, such as {BUCKET}/{key} of {CHECKPOINT}"
    s3.delete(key)
    assert f"{one}, which is not there" in refused(clone)
    assert ": 1 of 23 objects" in publish(origin)
    s3.write(key, right[:-1])
    assert f"{one}, which is damaged" in refused(clone)
    assert ": 1 of 23 objects" in publish(origin)
    s3.write(key, right[:-1] + b"!")
    assert f"{one}, which is damaged" in refused(clone)
    assert ": 1 of 23 objects" in publish(origin, "--read-back")
    assert ": 1 of 23 objects" in fetch(clone)


def test_a_remote_that_refuses_or_does_not_answer_gets_one_sentence(
    clone: Checkout, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    right, start = clone.environment, time.monotonic()
    clone.environment = right | {"AWS_SECRET_ACCESS_KEY": "not-this-one"}
    code, output = clone.try_("us3l", "fetch")
    assert code == 2 and "Forbidden" in output and output.count("\n") == 1 and "not-this-one" not in output
    assert time.monotonic() - start < SOON
    assert not (clone.folder / "data/digits").exists()
    clone.environment = right
    with silent_server() as url:
        configure(clone, "config.local", endpointurl=url)
        with monkeypatch.context() as patch:
            patch.setattr("us3l.pipeline.storage.remote.FIRST_ANSWER", 0.5)
            assert "does not answer within" in refused(clone)
    assert FIRST_ANSWER < 10
    assert "Could not connect" in refused(clone)


def test_what_is_not_as_recorded_is_not_published(origin: Checkout, tmp_path: Path) -> None:
    project = copy(origin.folder, tmp_path / "project")
    project.environment = origin.environment | {"PYTHONPATH": str(project.folder)}
    content = (project.folder / CHECKPOINT).read_bytes()
    (project.folder / CHECKPOINT).write_bytes(content[:-1] + b"!")
    code, output = project.try_("us3l", "publish")
    assert code == 2 and "DIFFER" in output and "nothing is published" in output.splitlines()[-1]

    (project.folder / CHECKPOINT).write_bytes(content)
    (cached := project.folder / ".dvc/cache" / place(project)).chmod(0o644)
    cached.write_bytes(b"damaged")
    cached.chmod(0o444)  # and so DVC trusts it
    code, output = project.try_("us3l", "publish")
    assert code == 2 and f"DVC's cache lacks 1 of 16 objects, such as that of {CHECKPOINT}; `us3l commit`" in output
    project.run("us3l", "commit")
    assert ": 0 of 23 objects" in publish(project)


def test_what_a_plain_pull_took_damaged_is_mended_and_what_only_the_user_has_is_not_lost(
    clone: Checkout, origin: Checkout, s3: S3, refused: Refused
) -> None:
    key = f"store/{place(origin)}"
    right = s3.read(key)
    s3.write(key, b"tampered")
    clone.run("dvc", "pull", "--quiet")
    assert damaged(clone) == [clone.folder / ".dvc/cache" / place(origin)]
    s3.write(key, right)
    code, output = clone.try_("us3l", "fetch")
    assert code == 1 and f"{CHECKPOINT}: not a whole safetensors file" in output
    assert damaged(clone) == []
    (clone.folder / CHECKPOINT).unlink()
    assert ": 0 of 23 objects" in fetch(clone)

    (clone.folder / CHECKPOINT).write_bytes(b"made here, and nowhere else")
    assert str(CHECKPOINT) in refused(clone)


@pytest.mark.parametrize("command", ["fetch", "publish"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no remote is configured; `dvc remote add --default NAME URL` adds one"),
        ({"url": "s3://bucket", "secret_access_key": "SECRET"}, "a file that git tracks (secret_access_key); take"),
        ({"url": "s3://USER:SECRET@bucket/store"}, "in a URL, which is printed (url); take it out"),
        ({"url": "ssh://user:SECRET@host/store"}, "in a URL, which is printed (url); take it out"),
        (
            {"url": "s3://bucket", "endpointurl": "https://SECRET@host"},
            "in a URL, which is printed (endpointurl); take",
        ),
        ({"url": "s3://bucket", "connect_timeout": "SECRET"}, "DVC refuses"),
    ],
)
def test_what_is_set_wrong_is_said_without_showing_a_credential(
    us3l: Command,
    monkeypatch: pytest.MonkeyPatch,
    finished: Checkout,
    settings: dict[str, str],
    said: str,
    command: str,
) -> None:
    monkeypatch.chdir(finished.folder)
    configure(finished, **settings)
    if not settings:
        (finished.folder / ".dvc/config").write_text("")
    code, output, error = us3l(command)
    assert code == 2 and said in error and error.count("\n") == 1 and not output
    assert "SECRET" not in error and "USER" not in error


def test_a_credential_in_a_local_file_is_taken_unless_git_tracks_it(clone: Checkout, refused: Refused) -> None:
    closed = "http://127.0.0.1:9"
    configure(clone, "config.local", access_key_id="USER", secret_access_key="SECRET", endpointurl=closed)
    assert "Could not connect" in refused(clone)
    clone.git("add", "--force", ".dvc/config.local")
    assert "has a credential in a file that git tracks (access_key_id, secret_access_key)" in refused(clone)


def test_a_remote_whose_package_is_missing_names_the_extra(
    us3l: Command, monkeypatch: pytest.MonkeyPatch, finished: Checkout
) -> None:
    monkeypatch.chdir(finished.folder)
    monkeypatch.setitem(sys.modules, "dvc_s3", None)
    configure(finished, url="s3://bucket")
    assert us3l("fetch")[2] == "us3l: the remote shared needs dvc-s3: pip install 'us3l[remotes]'\n"
