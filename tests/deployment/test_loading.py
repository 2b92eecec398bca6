"""`us3l.load`: networks to run, from results, exported folders and hubs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import write
from PIL import Image
from torch import Tensor

import us3l
from us3l.data.augment.views import plain_view
from us3l.data.sources.folder import Squares
from us3l.data.store import open_store
from us3l.deployment.config import Config
from us3l.deployment.network import Network
from us3l.deployment.transform import to_image
from us3l.evaluation.metrics import score
from us3l.models.backbones.backbone import Backbone
from us3l.models.saved_network import open_network
from us3l.params.dataset import Normalize
from us3l.params.dataset import TestView as View
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

CHECKPOINT = Path("results/tiny/checkpoints/us3l/seed0.safetensors")
NETWORK = Path("results/tiny/networks/us3l/seed0-w025.safetensors")


def digits() -> tuple[Tensor, Tensor]:
    """Test images [N, 1, 8, 8] in [0, 1], and their labels."""
    split = open_store(Path("data/digits")).test
    assert isinstance(split.images, np.ndarray)
    images = torch.from_numpy(split.images / np.float32(255)).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.array(split.labels))


@pytest.mark.usefixtures("project")
@torch.no_grad()
def test_a_network_comes_with_its_classifier_and_has_the_accuracy_of_the_table() -> None:
    network = us3l.load(NETWORK)
    images, labels = digits()
    record = read_record(Path("results/tiny/linear/us3l/seed0-w025.json"))
    assert score(network(images), labels)["top1"] == pytest.approx(record["top1"], abs=0.1)
    assert record["top1"] > 40
    assert network.config.classes == [str(digit) for digit in range(10)]
    assert network.config.image == [1, 8, 8]


@pytest.mark.usefixtures("project")
@torch.no_grad()
def test_a_checkpoint_and_a_width_name_the_same_network_as_its_file() -> None:
    images, _ = digits()
    by_file, by_width = us3l.load(str(NETWORK)), us3l.load(CHECKPOINT, width=0.25)
    assert torch.equal(by_file(images), by_width(images))
    assert us3l.load(CHECKPOINT, 1.0).config.width == 1.0
    assert us3l.widths(CHECKPOINT) == [1.0, 0.25]


@pytest.mark.usefixtures("project")
@torch.no_grad()
def test_normalization_is_inside_and_the_backbone_is_what_calibrate_wrote() -> None:
    shutil.rmtree("results/tiny/classifiers")
    images, _ = digits()
    network = us3l.load(NETWORK)
    assert network.classifier is None
    assert torch.equal(network(images), open_network(NETWORK)[0]((images - 0.3) / 0.4))
    with pytest.raises(UserError, match=r"small-resnet at width 0\.25 was never evaluated by a classifier"):
        network.transform(Image.new("L", (8, 8)))


@pytest.mark.usefixtures("project")
def test_a_classifier_of_another_network_is_refused() -> None:
    classifiers = Path("results/tiny/classifiers/us3l")
    shutil.copy(classifiers / "seed0-w100.safetensors", classifiers / "seed0-w025.safetensors")
    with pytest.raises(UserError, match="trained on another network than the one beside it; evaluate again"):
        us3l.load(NETWORK)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("load", "said"),
    [
        (lambda: us3l.load(CHECKPOINT, 0.6), "no network of width 0.6 is calibrated, those are 1, 0.25; `us3l export"),
        (lambda: us3l.load(CHECKPOINT), "not a narrow network; `us3l calibrate` writes those"),
        (lambda: us3l.load(NETWORK, 0.5), "is of width 0.25, not 0.5; give a checkpoint"),
        (lambda: us3l.load("nothing.safetensors"), "nothing.safetensors: no such file or folder; give what"),
        (lambda: us3l.load("somebody/network"), "needs huggingface_hub: pip install huggingface_hub"),
        (lambda: us3l.load("results"), "results/config.json: not readable (No such file or directory); give a folder"),
    ],
)
def test_what_is_no_network_is_said(load: Callable[[], Network], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load()
    assert said in str(caught.value)


def network(name: str, width: float, channels: int = 3) -> Network:
    return Network(
        Backbone(name, channels).build(width), Config(name, width, channels, Normalize(mean=[0.4], std=[0.3]))
    )


@pytest.mark.parametrize(
    ("name", "side", "shapes"),
    [
        ("small-resnet", 8, {"layer1": (8, 8), "layer2": (16, 4), "layer3": (32, 2)}),
        ("cifar-resnet18", 8, {"layer1": (16, 8), "layer2": (32, 4), "layer3": (64, 2), "layer4": (128, 1)}),
        ("resnet50", 64, {"layer1": (64, 16), "layer2": (128, 8), "layer3": (256, 4), "layer4": (512, 2)}),
        (
            "mobilenetv2",
            64,
            {
                "features.1": (8, 32),
                "features.3": (8, 16),
                "features.6": (8, 8),
                "features.13": (24, 4),
                "features.18": (1280, 2),
            },
        ),
        (
            "mobilenetv1",
            64,
            {
                "features.1": (16, 32),
                "features.3": (32, 16),
                "features.5": (64, 8),
                "features.11": (128, 4),
                "features.13": (256, 2),
            },
        ),
        ("vit-tiny", 32, {"blocks": (192, 2)}),
    ],
)
@torch.no_grad()
def test_feature_maps_are_the_last_of_each_resolution(name: str, side: int, shapes: dict[str, tuple[int, int]]) -> None:
    images, made = torch.rand(2, 3, side, side), network(name, 0.25)
    maps = made.features(images)
    assert {key: (each.shape[1], each.shape[2]) for key, each in maps.items()} == shapes
    *_, last = maps.values()
    if not name.startswith("vit"):
        assert torch.allclose(last.mean((2, 3)), made(images), rtol=1e-5, atol=1e-6)


def test_a_network_without_feature_maps_says_what_it_lacks() -> None:
    with pytest.raises(UserError, match=r"pixels has no feature maps: give it a method feature_maps\(x\)"):
        network("pixels", 1.0).features(torch.rand(1, 3, 8, 8))


@torch.no_grad()
def test_a_folded_network_computes_the_same_and_the_first_stays_as_it_is() -> None:
    made, images = network("small-resnet", 0.5), torch.rand(4, 3, 8, 8)
    before = made(images)
    torch.testing.assert_close(made.fold()(images), before, rtol=1e-5, atol=1e-5)
    assert not torch.equal(made.fold()(images), before)
    assert torch.equal(made(images), before)


def test_a_network_without_batch_norms_stays_as_it_is_too() -> None:
    made = network("vit-tiny", 0.25)
    with torch.inference_mode():
        folded = made.fold()
    assert not any(parameter.is_inference() for parameter in made.parameters())
    assert {id(each) for each in folded.parameters()}.isdisjoint(map(id, made.parameters()))


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (31, 57), (16, 16)])
@pytest.mark.parametrize("view", [{}, {"resize": 20, "center_crop": 16}])
def test_a_picture_is_prepared_as_the_data_set_was(tmp_path: Path, size: tuple[int, int], view: dict[str, int]) -> None:
    write(tmp_path / "a.png", 0, *size)
    plain = Normalize(mean=[0.0] * 3, std=[1.0] * 3)
    config = Config("x", 1.0, 3, plain, image=[3, 16, 16], prepared_size=16, test_view=View(**view))
    with Image.open(tmp_path / "a.png") as picture:
        ours = to_image(picture, config)
    pixels = torch.from_numpy(Squares([tmp_path / "a.png"], 16)[0:1])
    assert torch.equal(ours, plain_view(pixels, View(**view), plain)[0])


def test_a_picture_is_grey_where_the_network_is() -> None:
    config = Config("x", 1.0, 1, Normalize(mean=[0.0], std=[1.0]), test_view=View())
    image = to_image(Image.new("RGB", (3, 2), (255, 0, 0)), config)
    assert image.shape == (1, 2, 3)
    torch.testing.assert_close(image, torch.full((1, 2, 3), 76 / 255))
