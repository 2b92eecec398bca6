"""Freed memory that stays in the process costs no page faults when it is allocated again."""

import subprocess
import sys

import pytest
from project import ROOT

PROGRAM = """
import ctypes, resource, sys
from us3l.utils.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for turn in range(10):
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(2**26)
    libc.memset(block, 1, 2**26)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is Linux's")
def test_a_block_that_was_freed_is_not_mapped_again() -> None:
    def faults(kept: str) -> int:
        command = [sys.executable, "-c", PROGRAM, kept]
        return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") < 100 < faults("given back")
