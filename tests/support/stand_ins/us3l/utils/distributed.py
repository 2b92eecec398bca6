from contextlib import nullcontext
from types import SimpleNamespace


def choose_device(name, gpus):
    return None


def world(device):
    return nullcontext(SimpleNamespace(is_main=True))
