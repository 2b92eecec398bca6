"""Objects of DVC, each named by the MD5 of its content, carried whole between its cache and a remote."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash import file_md5
from dvc_objects.fs.utils import as_atomic

from us3l.pipeline.storage.remote import Remote
from us3l.pipeline.watching.bar import goes_on

ABSENT, DAMAGED = "not there", "damaged"
Outcome = TypeVar("Outcome")


class Damaged(Exception):
    """An object's content is not what its name states."""


def is_whole(store: HashFileDB, oid: str) -> bool:
    """Read an object to its end, and tell whether it is there and its content is what its name states."""
    try:
        _require_whole(store, store.oid_to_path(oid), oid)
    except (FileNotFoundError, Damaged):
        return False
    return True


def has_size_of(store: HashFileDB, other: HashFileDB, oid: str) -> bool:
    """Tell whether an object is in a store, as large as it is in another one."""
    try:
        sizes = [each.fs.size(each.oid_to_path(oid)) for each in (store, other)]
    except FileNotFoundError:
        return False
    return sizes[0] == sizes[1]


def missing(cache: HashFileDB, oids: Iterable[str]) -> list[str]:
    """Return the objects that are not in a cache, after deleting from it those that are damaged."""
    found = [oid for oid in oids if not is_whole(cache, oid)]
    for oid in filter(cache.exists, found):
        cache.delete(oid)
    return found


def download(remote: Remote, cache: HashFileDB, oids: list[str]) -> dict[str, str]:
    """Bring objects into a cache, and return those that the remote has not, or damaged: they stay outside.

    Raises UserError where the remote fails.
    """

    def get(oid: str) -> str | None:
        path = cache.oid_to_path(oid)
        try:
            with as_atomic(cache.fs, path, create_parents=True) as temporary:
                remote.objects.fs.get_file(remote.objects.oid_to_path(oid), temporary)
                _require_whole(cache, temporary, oid)
        except FileNotFoundError:
            return ABSENT
        except Damaged:
            return DAMAGED
        cache.protect(path)
        return None

    return {oid: wrong for oid, wrong in _for_each(remote, get, oids).items() if wrong}


def upload(remote: Remote, cache: HashFileDB, oids: list[str], is_there: Callable[[str], bool]) -> list[str]:
    """Copy objects to a remote unless they are there, and return what was copied.

    Raises UserError where the remote fails.
    """
    store = remote.objects

    def put(oid: str) -> bool:
        if is_there(oid):
            return False
        path = store.oid_to_path(oid)
        store.fs.makedirs(store.fs.parent(path), exist_ok=True)
        store.fs.put_file(cache.oid_to_path(oid), path)
        return True

    return [oid for oid, was_copied in _for_each(remote, put, oids).items() if was_copied]


def _require_whole(store: HashFileDB, path: str, oid: str) -> None:
    if file_md5(path, store.fs) != oid.removesuffix(".dir"):
        raise Damaged


def _for_each(remote: Remote, carry: Callable[[str], Outcome], oids: list[str]) -> dict[str, Outcome]:
    """Carry objects, several at once, when the remote has answered; start no more after its first failure."""
    if not oids:
        return {}
    remote.ask(oids[0])
    with goes_on(remote.name), ThreadPoolExecutor(remote.objects.fs.jobs) as pool:
        try:
            return dict(zip(oids, pool.map(carry, oids), strict=True))
        except Exception as error:
            pool.shutdown(cancel_futures=True)
            raise remote.failure(error) from None
