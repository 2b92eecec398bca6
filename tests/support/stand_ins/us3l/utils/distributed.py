from contextlib import nullcontext


def choose_device(name, gpus):
    return None


def process_count(device, shards):
    return 1


def world(device):
    return nullcontext()
