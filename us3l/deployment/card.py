"""The model card: README.md of an exported folder."""

from typing import Any

HEAD = """\
---
library_name: pytorch
tags: [image-{task}, slimmable, self-supervised]
---

# {architecture} at width {width}

{what} It was cut out of a universally slimmable network that was trained without labels (US3L, CVPR 2023), and is an
ordinary network: nothing in it can be slimmed any more, and nothing needs us3l.

| | |
| --- | --- |
{rows}

## Use

```python
from model import load  # model.py and model.safetensors; PyTorch alone

network = load()
{output} = network(images)  # [B, {channels}, {height}, {width_px}] float32 in [0, 1]; normalization is inside
```

{graphs}Images: {preparation}.
"""
DERIVED = """
## Where it is from

`{command}` derives the accuracy again, in the project that made it; `provenance` in config.json has the seals of
network, checkpoint and data, and the commit.
"""


def model_card(config: dict[str, Any]) -> str:
    """Write the card of an exported network from its config.json."""
    classes = config["classes"]
    channels, height, width_px = config["image"] or (config["in_channels"], "H", "W")
    card = HEAD.format(
        task="classification" if classes else "feature-extraction",
        architecture=config["architecture"],
        width=f"{config['width']:g}",
        what=f"It sorts images into {len(classes)} classes." if classes else "It turns images into features.",
        rows="\n".join(f"| {name} | {value} |" for name, value in _rows(config)),
        output="logits" if classes else "features",
        channels=channels,
        height=height,
        width_px=width_px,
        graphs=_graphs(config["files"]),
        preparation=preparation(config),
    )
    provenance = config.get("provenance")
    return card + DERIVED.format(command=provenance["verify"]) if provenance else card


def _rows(config: dict[str, Any]) -> list[tuple[str, str]]:
    output = f"{len(config['classes'])} classes" if config["classes"] else f"{config['num_features']} features"
    rows = [("output", output)]
    if accuracy := config.get("accuracy"):
        low, high = accuracy["interval"]
        rows.append(
            (accuracy["measure"], f"{accuracy['top1']:.1f}% top-1, [{low:.1f}, {high:.1f}] over {accuracy['n']} images")
        )
    if "parameters" in config:
        rows.append(("parameters", f"{config['parameters']:,}"))
        rows.append(("multiply-accumulates of an image", f"{config['macs']:,}"))
    rows += [(name, f"{entry['bytes']:,} bytes") for name, entry in config["files"].items()]
    return rows


def _graphs(files: dict[str, Any]) -> str:
    known = {
        "model.onnx": "`model.onnx` is the same network for onnxruntime",
        "model.pt2": "`model.pt2` for `torch.export.load`",
    }
    told = [text for name, text in known.items() if name in files]
    return f"{'; '.join(told)}, for batches of any size. " if told else ""


def preparation(config: dict[str, Any]) -> str:
    """Say in words how an image becomes an input."""
    steps = ["grey" if config["in_channels"] == 1 else "RGB"]
    if config["prepared_size"]:
        steps.append(f"the shorter side resized to {config['prepared_size']} pixels (bilinear)")
        steps.append("the centre cropped to a square")
    view = config["test_view"] or {}
    if view.get("resize"):
        steps.append(f"the shorter side resized to {view['resize']} pixels ({view['interpolation']})")
    if view.get("center_crop"):
        steps.append(f"the centre cropped to {view['center_crop']} pixels")
    return ", ".join([*steps, "divided by 255"])
