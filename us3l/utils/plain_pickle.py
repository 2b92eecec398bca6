"""Reader of pickles that runs nothing they ask for, and that no pickle keeps busy or fills the memory with."""

import io
import pickle
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MOST_OPERATIONS = 500_000  # the largest of CIFAR takes 200,000; each takes up to 200 bytes of memory
MOST_WIDE_TEXT = 2**20  # bytes of a text beyond Latin-1, which takes four times as many in memory
LATIN_1 = bytes(range(0xC4))  # the bytes of its characters in UTF-8


def load_plain(
    data: bytes | io.BufferedIOBase,
    stand_ins: Mapping[tuple[str, str], Any],
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Load the dicts, lists, tuples, numbers and strings in a pickle, of a file from where it stands.

    stand_ins: what takes the place of the functions and classes that a pickle names, by module and name; they are
    called with whatever a pickle gives them. Python 2's strings become bytes. Keys are texts and numbers, since the
    hash of a tuple of tuples may take for ever. Raises ValueError for anything else, and for a damaged pickle.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return _Unpickler(file, stand_ins, persistent_load).load()
    except Exception as error:  # a bad pickle can raise anything (pickle's documentation)
        raise ValueError(textwrap.shorten(f"{type(error).__name__}: {error}", 200)) from None


class StandIn:
    """Stand-in for an object that a pickle names. No pickle can change it: setting a state does nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class PlainBytes(StandIn):
    """Stand-in for `_codecs.encode`, which encodes only on demand: a pickle can call it any number of times."""

    def __init__(self, text: str, *_: Any) -> None:
        self._text = text

    def to_bytes(self) -> bytes:
        return self._text.encode("latin1")


class PlainDict(dict[Any, Any], StandIn):
    """A dict whose keys are texts and numbers; stand-in for `collections.OrderedDict`, too."""

    def __init__(self, items: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__()
        for key, value in items:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | bytes | int | PlainBytes):
            raise pickle.UnpicklingError(f"it holds a dict with a key that is a {type(key).__name__}")
        super().__setitem__(key, value)


_OPERATIONS = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE),
    *(pickle.BUILD, pickle.BINPERSID, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET),
    *(pickle.LONG_BINGET, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2),
    *(pickle.LONG1, pickle.BINFLOAT, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES),
    *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_TUPLE),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
)


class _Dispatch(dict[int, Callable[[Any], None]]):
    """The functions of the operations that plain values need in the binary protocols 2 to 4, which counts them."""

    left = MOST_OPERATIONS

    def __getitem__(self, operation: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it has more than {MOST_OPERATIONS} operations")
        return super().__getitem__(operation)

    def __missing__(self, operation: int) -> Callable[[Any], None]:
        raise pickle.UnpicklingError(f"it holds other than plain values (operation {operation:#x})")


class _Unpickler(pickle._Unpickler):  # typeshed knows only the parts that are public
    """Python's implementation: the one in C takes gigabytes for a pickle of ten bytes (CPython issue 115952)."""

    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    stack: list[Any]
    load_build: Callable[[], None]

    def __init__(
        self,
        file: io.BufferedIOBase,
        stand_ins: Mapping[tuple[str, str], Any],
        persistent_load: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__(file, encoding="bytes")
        self.stand_ins, self.find_object = stand_ins, persistent_load
        known = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPERATIONS}
        self.dispatch = _Dispatch(known | {code[0]: load for code, load in self.replaced.items()})  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.stand_ins[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, address: Any) -> Any:
        if self.find_object is None:
            raise pickle.UnpicklingError("it names objects outside of it")
        return self.find_object(address)

    def _load_empty_dict(self) -> None:
        self.append(PlainDict())

    def _load_text(self) -> None:
        content = self.read(int.from_bytes(self.read(4), "little"))
        if len(content) > MOST_WIDE_TEXT and content.translate(None, LATIN_1):
            raise pickle.UnpicklingError("it holds a long text beyond Latin-1")
        self.append(str(content, "utf-8", "surrogatepass"))

    def _load_state(self) -> None:
        if not isinstance(self.stack[-2], StandIn):
            raise pickle.UnpicklingError(f"it sets the state of a {type(self.stack[-2]).__name__}")
        self.load_build()

    replaced = {  # noqa: RUF012
        pickle.EMPTY_DICT: _load_empty_dict,
        pickle.BINUNICODE: _load_text,
        pickle.BUILD: _load_state,
        pickle.NEWOBJ: pickle._Unpickler.load_reduce,  # type: ignore[attr-defined]  # calls a stand-in, as REDUCE does
    }
