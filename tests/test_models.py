import pytest
import torch
import torchvision
from torch import nn

from us3l.linear import cost
from us3l.models import BACKBONES, backbone
from us3l.models.channels import scaled
from us3l.models.heads import Network
from us3l.params import Method

WIDTHS = (1.0, 0.75, 0.5, 0.25)


# --- backbones ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_imagenet_resnets_compute_what_torchvisions_compute_with_the_same_weights(depth: int) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")()
    theirs.fc = nn.Identity()
    generator = torch.Generator().manual_seed(depth)
    state = {
        name: value if value.dim() == 4 else torch.rand(value.shape, generator=generator).to(value.dtype) + 0.5
        for name, value in theirs.state_dict().items()
        if "num_batches" not in name
    }
    ours = backbone(f"resnet{depth}", 1.0, 3)
    for network in (theirs, ours):
        missing, unexpected = network.load_state_dict(state, strict=False)
        assert not unexpected and all("num_batches" in name for name in missing)
    x = torch.randn(4, 3, 64, 64, generator=generator)
    for mode in (False, True, False):  # the last one sees the statistics that training left
        torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "size", "classes", "parameters", "macs", "features"),
    [
        ("cifar-resnet18", 32, 100, (11.169, 6.285, 2.795, 0.700), (555.5, 312.8, 139.3, 35.1), (512, 384, 256, 128)),
        (
            "cifar-resnet50",
            32,
            100,
            (23.500, 13.229, 5.889, 1.479),
            (1298.0, 730.5, 325.0, 81.5),
            (2048, 1536, 1024, 512),
        ),
        ("resnet18", 224, 1000, (11.177, 6.290, 2.799, 0.702), (1814, 1043, 483, 136), (512, 384, 256, 128)),
        ("resnet50", 224, 1000, (23.508, 13.235, 5.893, 1.481), (4089, 2323, 1052, 278), (2048, 1536, 1024, 512)),
    ],
)
def test_parameters_and_macs_are_those_of_the_official_networks(
    name: str,
    size: int,
    classes: int,
    parameters: tuple[float, ...],
    macs: tuple[float, ...],
    features: tuple[int, ...],
) -> None:
    """In millions; the MACs with a classifier of so many classes."""
    costs = [cost(name, width, (3, size, size), classes) for width in WIDTHS]
    decimals = 1 if isinstance(macs[0], float) else 0
    assert tuple(round(each["parameters"] / 1e6, 3) for each in costs) == parameters
    assert tuple(round(each["macs"] / 1e6, decimals) for each in costs) == macs
    assert tuple(backbone(name, width, 3).num_features for width in WIDTHS) == features


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_takes_grey_images_and_gives_the_features_it_announces(name: str) -> None:
    network = backbone(name, 0.25, 1).eval()
    features = network(torch.zeros(2, 1, 32, 32))
    assert features.shape == (2, getattr(network, "num_features", 32 * 32))


# --- channels -------------------------------------------------------------------------------------------------------


def test_channels_are_the_nearest_multiple_of_eight_unless_that_loses_a_tenth() -> None:
    for channels in (16, 24, 32, 64, 96, 128, 256, 512, 1024, 2048):
        for width in torch.linspace(0.25, 1, 301, dtype=torch.float64).tolist():
            exact = channels * width
            nearest = min(range(8, 2049, 8), key=lambda multiple: (abs(multiple - exact), -multiple))
            assert scaled(channels, width) == (nearest if nearest >= 0.9 * exact else nearest + 8)


@pytest.mark.parametrize("channels", [32, 64, 128, 256, 512, 2048])
def test_wider_networks_never_have_fewer_channels(channels: int) -> None:
    counts = [scaled(channels, width / 1000) for width in range(250, 1001)]
    assert counts == sorted(counts)
    assert counts[-1] == channels


# --- heads ----------------------------------------------------------------------------------------------------------


def network(width: float = 1.0, **method: object) -> Network:
    settings = {"hidden": 16, "output": 6, "momentum": 0.99}
    return Network(backbone("small-resnet", width, 1), Method.model_validate(settings | method))


SIMCLR = {"name": "simclr", "base": "infonce"}
BYOL = {"name": "byol", "base": "cosine"}
SIMSIAM = {"name": "simsiam", "base": "cosine", "momentum": None}


def layers(head: nn.Module) -> list[str]:
    """Each layer with its sizes; a + where it has a bias, or a scale and a shift."""
    described = []
    for layer in head:
        sizes = {nn.Linear: ("in_features", "out_features"), nn.BatchNorm1d: ("num_features",)}.get(type(layer), ())
        bias = "+" if getattr(layer, "bias", None) is not None else ""
        described.append(" ".join([type(layer).__name__ + bias, *(str(getattr(layer, size)) for size in sizes)]))
    return described


@pytest.mark.parametrize(
    ("method", "middle", "last"),
    [(SIMCLR, "Linear+", []), (BYOL, "Linear", []), (SIMSIAM, "Linear", ["BatchNorm1d 6"])],
)
def test_projectors_have_the_official_layers(method: dict[str, object], middle: str, last: list[str]) -> None:
    hidden = ["BatchNorm1d+ 16", "ReLU"]
    expected = ["Linear+ 128 16", *hidden, f"{middle} 16 16", *hidden, "Linear+ 16 6", *last]
    assert layers(network(**method).projector) == expected


def test_predictors_have_the_official_layers_and_simclr_has_one_for_distillation_only() -> None:
    expected = ["Linear 6 16", "BatchNorm1d+ 16", "ReLU", "Linear+ 16 6"]
    assert layers(network(**BYOL).predictor) == layers(network(**BYOL).distillation_predictor) == expected
    assert layers(network(**SIMSIAM).predictor) == layers(network(**SIMCLR).distillation_predictor) == expected
    assert isinstance(network(**SIMCLR).predictor, nn.Identity)


def test_heads_are_apart_only_where_the_method_says_so() -> None:
    assert network(**BYOL).distillation_predictor is not network(**BYOL).predictor
    for method in (SIMSIAM, BYOL | {"distillation_head": "shared"}, SIMCLR | {"distillation_head": "shared"}):
        made = network(**method)
        assert made.distillation_predictor is made.predictor
        assert not any(name.startswith("distillation_predictor") for name, _ in made.named_parameters())


def test_only_simsiams_bias_before_its_last_norm_is_frozen() -> None:
    for method, frozen in ((SIMCLR, []), (BYOL, []), (SIMSIAM, ["projector.6.bias"])):
        assert [name for name, p in network(**method).named_parameters() if not p.requires_grad] == frozen


@pytest.mark.parametrize("method", [SIMCLR, BYOL, SIMSIAM])
def test_of_the_heads_only_the_projectors_input_follows_the_width(method: dict[str, object]) -> None:
    shapes = [
        {name: tuple(p.shape) for name, p in network(width, **method).named_parameters() if "backbone" not in name}
        for width in (1.0, 0.25)
    ]
    assert {name for name in shapes[0] if shapes[0][name] != shapes[1][name]} == {"projector.0.weight"}
    assert [each["projector.0.weight"] for each in shapes] == [(16, 128), (16, 32)]


@pytest.mark.parametrize("head", [None, "predictor", "distillation_predictor"])
def test_a_network_gives_the_projection_and_what_the_head_makes_of_it(head: str | None) -> None:
    made, x = network(**BYOL).eval(), torch.randn(4, 1, 8, 8)
    projection, prediction = made(x, head)
    torch.testing.assert_close(projection, made.projector(made.backbone(x)))
    torch.testing.assert_close(prediction, made.get_submodule(head)(projection) if head else projection)
    assert prediction.shape == projection.shape == (4, 6)
