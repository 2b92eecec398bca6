"""A remote of DVC: opened with short and few attempts, and refused where its settings would give a credential away."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from dvc.exceptions import DvcException
from dvc.fs import get_fs_config
from dvc.repo import Repo
from dvc_data.hashfile.db import HashFileDB
from dvc_objects.fs.errors import ConfigError, RemoteMissingDepsError

from us3l.params.schema import suggestion
from us3l.utils.errors import UserError
from us3l.utils.extras import require_extra

SECRET = {
    *("access_key_id", "secret_access_key", "session_token", "sse_customer_key", "password", "passphrase", "token"),
    *("connection_string", "sas_token", "account_key", "client_secret", "oss_key_id", "oss_key_secret"),
    "gdrive_client_secret",
}
OF_EXTRA = ("s3", "ssh")
BRIEF = {"connect_timeout": 3, "read_timeout": 10}  # seconds; what the project's own settings say goes before
PATIENCE: dict[str, dict[str, int]] = {"s3": BRIEF, "http": BRIEF, "https": BRIEF, "ssh": {"timeout": 10}}
ATTEMPTS = 2  # of S3
FIRST_ANSWER = 8.0  # seconds
CHECK = "check its URL, the network, and the credentials in the environment or .dvc/config.local"


@dataclass(frozen=True)
class Remote:
    """A remote, by its name and URL in sentences, and the objects in it."""

    name: str
    objects: HashFileDB

    def ask(self, oid: str) -> None:
        """Ask for an object, which may be there or not. Raises UserError where no answer comes soon, or a refusal."""
        answers: SimpleQueue[Exception | None] = SimpleQueue()

        def ask() -> None:
            try:
                self.objects.fs.info(self.objects.oid_to_path(oid))
            except Exception as error:
                answers.put(error)
            else:
                answers.put(None)

        Thread(target=ask, daemon=True).start()
        try:
            error = answers.get(timeout=FIRST_ANSWER)
        except Empty:
            raise UserError(f"the remote {self.name} does not answer within {FIRST_ANSWER:g} s; {CHECK}") from None
        if error and not isinstance(error, FileNotFoundError):
            raise self.failure(error)

    def failure(self, error: Exception) -> UserError:
        """Return a sentence about what went wrong; each kind of remote has exceptions of its own."""
        reason = str(error) or type(error).__name__
        return UserError(f"the remote {self.name}: {reason}; {CHECK}")


@contextmanager
def dvc_project() -> Iterator[Repo]:
    """Open the DVC project of this folder; within the block neither DVC nor what asks the remote logs anything.

    Raises UserError where there is no such project, and where DVC refuses something.
    """
    if not Path(".dvc").is_dir():
        raise UserError("no .dvc here; run the command at the top of a project that DVC tracks")
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with Repo(".") as repo:
            yield repo
    except DvcException as error:
        raise UserError(f"DVC refuses: {error}") from None
    finally:
        logging.disable(disabled)


def open_remote(repo: Repo, name: str | None) -> Remote:
    """Return a remote of the project, by default the default one; it is not asked anything yet.

    Raises UserError where there is no such remote, where a credential lies in the wrong place, and where the packages
    for this kind of remote are missing.
    """
    _refuse_misplaced_credentials(repo)
    remotes = repo.config["remote"]
    name = name or repo.config["core"].get("remote")
    if name is None:
        raise UserError("no remote is configured; `dvc remote add --default NAME URL` adds one, see docs/storage.md")
    if name not in remotes:
        raise UserError(f".dvc/config: no remote is called {name!r}; {suggestion(name, [*remotes])}")
    url = get_fs_config(repo.config, name=name)["url"]
    scheme = _scheme(url)
    if scheme in OF_EXTRA:
        require_extra("remotes", f"the remote {name}")
    remotes[name] = PATIENCE.get(scheme, {}) | remotes[name]
    os.environ.setdefault("AWS_MAX_ATTEMPTS", str(ATTEMPTS))
    try:
        return Remote(f"{name} ({url})", repo.cloud.get_remote_odb(name))
    except (ConfigError, RemoteMissingDepsError) as error:
        raise UserError(f"the remote {name} ({url}) cannot be opened: {error}") from None


def _refuse_misplaced_credentials(repo: Repo) -> None:
    """Raise UserError for a credential that git tracks, or in a URL, which is printed; without showing it."""
    for level, file in repo.config.files.items():
        is_tracked = level == "repo" or (level == "local" and repo.scm.is_tracked(file))
        for name, settings in repo.config.load_one(level)["remote"].items():
            secret = sorted(SECRET & settings.keys()) if is_tracked else []
            if wrong := secret or [key for key in ("url", "endpointurl") if _has_credential(settings.get(key, ""))]:
                where = "a file that git tracks" if secret else "a URL, which is printed"
                right = f"take it out, and give it in the environment or with `dvc remote modify --local {name} …`"
                raise UserError(f"{file}: the remote {name} has a credential in {where} ({', '.join(wrong)}); {right}")


def _has_credential(url: str) -> bool:
    """Tell whether a URL has a user or a password before its host; that of SSH may name the user."""
    user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return ":" in user if _scheme(url) == "ssh" else bool(user)


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    return scheme if separator else ""
