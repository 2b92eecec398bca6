"""Servers on this machine that hold what DVC pushes: S3, SSH, and one of files that can only be read."""

import getpass
import logging
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from waiting import until

LOOPBACK = "127.0.0.1"
BUCKET = "bucket"


class S3:
    """A server of objects with one user, whose keys `environment` has; it refuses all others."""

    def __init__(self) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # which tells of each request
        self._server = ThreadedMotoServer(LOOPBACK, 0, verbose=False)
        self._server.start()
        self.url = "http://{}:{}".format(*self._server.get_host_and_port())
        policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
        anyone = {"aws_access_key_id": "anyone", "aws_secret_access_key": "anyone", "region_name": "us-east-1"}
        iam = boto3.client("iam", endpoint_url=self.url, **anyone)
        iam.create_user(UserName="user")
        iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="user")["AccessKey"]
        self.environment = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_SHARED_CREDENTIALS_FILE": "nosuch",
            "AWS_CONFIG_FILE": "nosuch",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        user = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        self._objects = boto3.client("s3", endpoint_url=self.url, **anyone | user)
        self._objects.create_bucket(Bucket=BUCKET)
        self._ask_for_keys_after("0")

    def read(self, key: str) -> bytes:
        return bytes(self._objects.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def write(self, key: str, content: bytes) -> None:
        self._objects.put_object(Bucket=BUCKET, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self._objects.delete_object(Bucket=BUCKET, Key=key)

    def stop(self) -> None:
        self._ask_for_keys_after("inf")
        self._server.stop()

    def _ask_for_keys_after(self, requests: str) -> None:
        urlopen(Request(f"{self.url}/moto-api/reset-auth", requests.encode(), {"Content-Type": "text/plain"})).close()


@contextmanager
def ssh_server(folder: Path) -> Iterator[dict[str, Any]]:
    """Run sshd, and yield the settings of a remote of DVC that it lets in."""
    for name in ("host", "user", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as the system does when it starts the service
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    settings = {
        "ListenAddress": LOOPBACK,
        "Port": port,
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "PasswordAuthentication": "no",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    server = subprocess.Popen([sshd(), "-D", "-f", str(folder / "config"), "-E", str(folder / "log")])
    try:
        until(lambda: server.poll() is not None or answers(port), "sshd")
        assert server.poll() is None, (folder / "log").read_text()
        yield {
            "url": f"ssh://{LOOPBACK}:{port}{folder / 'store'}",
            "user": getpass.getuser(),
            "keyfile": str(folder / "user"),
        }
    finally:
        server.terminate()
        server.wait()


def sshd() -> str | None:
    return shutil.which("sshd", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((LOOPBACK, port)) == 0


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder to readers, and yield its URL."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{server.server_port}"
        server.shutdown()


@contextmanager
def silent_server() -> Iterator[str]:
    """Accept connections, and never answer."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield f"http://{LOOPBACK}:{server.getsockname()[1]}"
