"""`us3l export`: folders that run without this package, from a run's networks or from the file of one."""

from collections.abc import Sequence
from pathlib import Path

import torch

from us3l.deployment.export import Compared, export
from us3l.deployment.loading import load_result
from us3l.deployment.network import Network
from us3l.params.sampling import width_label
from us3l.pipeline.deploy import DeployedRun

SIDE = 64  # pixels of random images, where a file does not say what its network saw


def export_run(
    deployed: DeployedRun, widths: Sequence[float], with_head: bool, formats: Sequence[str], folder: Path | None
) -> bool:
    """Export networks, by default those of the run's own widths, into a folder each; tell whether every file holds.

    Raises UserError as `DeployedRun.network` and `us3l.deployment.export.export` do.
    """
    parent, holds = folder or deployed.folder, True
    for width in widths or deployed.run.widths:
        network = deployed.network(width, with_head)
        if with_head:
            deployed.require_recorded_classes(network, width)
        holds &= _export(network, parent / width_label(width), formats, deployed.test_images)
    return holds


def export_file(path: Path, formats: Sequence[str], folder: Path | None) -> bool:
    """Export the network of one file, compared on random images; tell whether every file holds."""
    network = load_result(path)
    shape = network.config.image or [network.config.in_channels, SIDE, SIDE]
    images = torch.rand(16, *shape, generator=torch.Generator().manual_seed(0))
    return _export(network, (folder or Path("exports", path.stem)) / width_label(network.config.width), formats, images)


def _export(network: Network, folder: Path, formats: Sequence[str], images: torch.Tensor) -> bool:
    compared = export(network, folder, formats, images)
    kept = [each for each in compared if not each.problem]
    print(f"{folder}: {', '.join(map(_described, kept))}; compared on {len(images)} images without us3l")
    for each in compared:
        if each.problem:
            print(f"{folder}: {each.file} removed: {each.problem}")
    return len(kept) == len(compared)


def _described(each: Compared) -> str:
    exactness = "bitwise" if each.difference == 0 else f"within {each.difference:.0e}"
    return f"{each.file} {each.bytes:,} bytes, {exactness}"
