"""Reader of pickles that runs nothing they ask for."""

import io
import pickle
import pickletools
import textwrap
from typing import Any

import numpy as np


def load_plain(data: bytes) -> Any:
    """Load the dicts, lists, numbers, strings and uint8 arrays in a pickle.

    Arrays become `PlainArray`, Python 2's strings bytes, bytes that Python 3 wrote for Python 2 `PlainBytes`.
    Raises ValueError for anything else, and for a damaged pickle.
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a bad pickle can raise anything (pickle's documentation)
        raise ValueError(textwrap.shorten(f"{type(error).__name__}: {error}", 200)) from None


class _StandIn:
    """Stand-in for an object that a pickle names. No pickle can change it: setting a state does nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class PlainBytes(_StandIn):
    """Stand-in for `_codecs.encode`, which encodes only on demand: a pickle can call it any number of times."""

    def __init__(self, text: str, *_: Any) -> None:
        self._text = text

    def to_bytes(self) -> bytes:
        return self._text.encode("latin1")


class _Dtype(_StandIn):
    def __init__(self, code: str | bytes, *_: Any) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError("it holds an array of another type than uint8")


class PlainArray(_StandIn):
    """A uint8 array as its pickle describes it, unchecked until `to_numpy`."""

    def __setstate__(self, state: Any) -> None:
        _version, self._shape, dtype, self._fortran, self._raw = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("it holds an array without a type")

    def to_numpy(self) -> np.ndarray:
        """Build the array. Raises ValueError, TypeError or AttributeError when the pickle described no uint8 array."""
        raw = self._raw.to_bytes() if isinstance(self._raw, PlainBytes) else self._raw
        return np.frombuffer(raw, np.uint8).reshape(self._shape, order="F" if self._fortran else "C")


_STAND_INS = {
    ("_codecs", "encode"): PlainBytes,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): PlainArray,
    ("numpy.core.multiarray", "_reconstruct"): PlainArray,
    ("numpy._core.multiarray", "_reconstruct"): PlainArray,
}
# Protocol 5 only adds opcodes that no archive needs, and one of them allocates as much memory as the pickle demands.
_OPCODES = {ord(opcode.code) for opcode in pickletools.opcodes if opcode.proto < 5}


class _Unpickler(pickle._Unpickler):
    """Python's implementation: the one in C takes gigabytes for a pickle of ten bytes (CPython issue 115952)."""

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code in _OPCODES}  # noqa: RUF012

    def find_class(self, module: str, name: str) -> type[_StandIn]:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None
