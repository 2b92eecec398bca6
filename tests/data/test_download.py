import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from full_disk import files_limited_to
from odd_files import odd_file

from us3l.data.sources import download
from us3l.data.sources.download import fetch
from us3l.utils.errors import UserError

CONTENT = bytes(range(256)) * 4000  # more than a socket buffers, so that a dropped connection loses some
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Served:
    """How the loopback server behaves, and what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    drops: int = 0  # connections to be cut after half of what they should send
    statuses: list[int] = field(default_factory=list)  # answers with errors that come first
    asked: list[str | None] = field(default_factory=list)  # the Accept-Encoding of each request

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.headers["Accept-Encoding"])
        if self.statuses:
            return request.send_error(self.statuses.pop(0))
        body = self.content
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.drops:
            self.drops -= 1
            body = body[: len(body) // 2]
        request.wfile.write(body)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    behaviour = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    behaviour.url = f"http://127.0.0.1:{server.server_port}/archive.tar.gz"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield behaviour
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_is_kept_under_its_md5(served: Served, tmp_path: Path) -> None:
    path = fetch(served.url, MD5, tmp_path / "downloads")
    assert path.read_bytes() == CONTENT
    assert list((tmp_path / "downloads").iterdir()) == [path]
    assert MD5 in path.name


def test_a_verified_download_is_used_again(served: Served, tmp_path: Path) -> None:
    first = fetch(served.url, MD5, tmp_path)
    assert fetch(served.url, MD5, tmp_path) == first
    assert len(served.asked) == 1


def test_a_dropped_connection_is_tried_again(served: Served, tmp_path: Path) -> None:
    served.drops = 2
    path = fetch(served.url, MD5, tmp_path)
    assert path.read_bytes() == CONTENT
    assert len(served.asked) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_asked_for_as_they_are(served: Served, tmp_path: Path) -> None:
    fetch(served.url, MD5, tmp_path)
    assert served.asked == ["identity"]


def test_a_connection_that_breaks_every_time_leaves_nothing_and_says_what_to_do(served: Served, tmp_path: Path) -> None:
    served.drops = 100
    with pytest.raises(UserError, match=r"archive\.tar\.gz: the download broke off .*; run the same command again"):
        fetch(served.url, MD5, tmp_path)
    assert len(served.asked) == 1 + len(download.PAUSES)
    assert list(tmp_path.iterdir()) == []
    served.drops = 0
    assert fetch(served.url, MD5, tmp_path).read_bytes() == CONTENT


def test_what_a_killed_download_left_is_not_taken_for_the_file(served: Served, tmp_path: Path) -> None:
    (tmp_path / f".{MD5}.tar.gz.1.tmp").write_bytes(CONTENT[:1000])
    assert fetch(served.url, MD5, tmp_path).read_bytes() == CONTENT
    assert len(served.asked) == 1


def test_an_overloaded_server_is_asked_again(served: Served, tmp_path: Path) -> None:
    served.statuses = [503, 500]
    assert fetch(served.url, MD5, tmp_path).read_bytes() == CONTENT


def test_an_address_that_the_server_does_not_know_is_not_tried_again(served: Served, tmp_path: Path) -> None:
    served.statuses = [404]
    with pytest.raises(UserError, match=r"archive\.tar\.gz: the server answers .*404"):
        fetch(served.url, MD5, tmp_path)
    assert len(served.asked) == 1


def test_a_server_that_is_not_there_is_reported(served: Served, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:1/x: the download broke off"):
        fetch("http://127.0.0.1:1/x", MD5, tmp_path)


def test_a_download_with_another_checksum_is_removed(served: Served, tmp_path: Path) -> None:
    served.content = CONTENT + b"!"
    actual = hashlib.md5(served.content).hexdigest()
    with pytest.raises(UserError, match=rf"{served.url}: .*{MD5}.*{actual}"):
        fetch(served.url, MD5, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_kept_download_that_changed_is_removed(served: Served, tmp_path: Path) -> None:
    fetch(served.url, MD5, tmp_path).write_bytes(b"changed")
    with pytest.raises(UserError, match=MD5):
        fetch(served.url, MD5, tmp_path)
    assert fetch(served.url, MD5, tmp_path).read_bytes() == CONTENT


def test_a_full_disk_is_not_taken_for_a_broken_connection(served: Served, tmp_path: Path) -> None:
    with files_limited_to(1000), pytest.raises(UserError, match=r"\.tar\.gz: the disk is full"):
        fetch(served.url, MD5, tmp_path)
    assert len(served.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_trouble_with_the_disk_is_not_taken_for_a_broken_connection(served: Served, tmp_path: Path) -> None:
    (tmp_path / "downloads").write_text("a file")
    with pytest.raises(UserError, match=rf"{MD5}\.tar\.gz: not writable: File exists"):
        fetch(served.url, MD5, tmp_path / "downloads")
    assert len(served.asked) == 0


def test_a_progress_bar_is_for_terminals_only(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(served.url, MD5, tmp_path / "piped")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fetch(served.url, MD5, tmp_path / "terminal")
    assert "100%" in capsys.readouterr().err


def test_a_local_file_is_read_where_it_lies(tmp_path: Path) -> None:
    archive = tmp_path / "an archive.tar.gz"
    archive.write_bytes(CONTENT)
    assert fetch(archive.as_uri(), MD5, tmp_path / "downloads") == archive
    assert list(tmp_path.iterdir()) == [archive]


def test_a_local_file_with_another_checksum_is_refused_and_stays(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(b"other")
    actual = hashlib.md5(b"other").hexdigest()
    with pytest.raises(UserError, match=rf"{archive.as_uri()}: .*{MD5}.*{actual}"):
        fetch(archive.as_uri(), MD5, tmp_path)
    assert archive.read_bytes() == b"other"


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_local_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}.* cannot be read"):
        fetch(f"file://{tmp_path}/{name}", MD5, tmp_path)


def test_a_relative_file_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"file://archive\.tar\.gz: a file address names an absolute path"):
        fetch("file://archive.tar.gz", MD5, tmp_path)


def test_a_server_that_sends_without_end_is_refused(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"archive\.tar\.gz: the server answers more than 1000 bytes; correct url"):
        fetch(served.url, MD5, tmp_path)
    assert list(tmp_path.iterdir()) == [] and len(served.asked) == 1


@pytest.mark.usefixtures("must_end")
@pytest.mark.parametrize(
    ("kind", "said"), [("pipe", "a pipe or a device"), ("device", "a pipe or a device"), ("huge", "bytes are more")]
)
def test_what_is_no_file_in_the_place_of_an_archive_is_not_waited_for(tmp_path: Path, kind: str, said: str) -> None:
    path = odd_file(tmp_path, kind)
    with pytest.raises(UserError, match=f"{path} cannot be read .*{said}"):
        fetch(path.as_uri(), MD5, tmp_path)
