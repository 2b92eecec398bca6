"""Arrays of bytes in pickles, without running what the pickles ask for."""

import pickle
from typing import Any

import numpy as np

from us3l.utils.plain_pickle import PlainBytes, StandIn


class _Dtype(StandIn):
    def __init__(self, code: str | bytes, *_: Any) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError("it holds an array of another type than uint8")


class PlainArray(StandIn):
    """A uint8 array as its pickle describes it, unchecked until `to_numpy`."""

    def __setstate__(self, state: Any) -> None:
        _version, self._shape, dtype, self._fortran, self._raw = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("it holds an array without a type")

    def to_numpy(self) -> np.ndarray:
        """Build the array. Raises ValueError, TypeError or AttributeError when the pickle described no uint8 array."""
        raw = self._raw.to_bytes() if isinstance(self._raw, PlainBytes) else self._raw
        return np.frombuffer(raw, np.uint8).reshape(self._shape, order="F" if self._fortran else "C")


ARRAYS = {
    ("_codecs", "encode"): PlainBytes,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): PlainArray,
    ("numpy.core.multiarray", "_reconstruct"): PlainArray,
    ("numpy._core.multiarray", "_reconstruct"): PlainArray,
}
