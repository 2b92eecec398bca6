import pytest
import torch
import torchvision
from torch import nn

from us3l.models.backbones import vit
from us3l.models.backbones.backbone import Backbone
from us3l.models.backbones.layers import scale_channels
from us3l.models.backbones.registry import BUILT_IN
from us3l.models.complexity import cost
from us3l.models.heads import Network
from us3l.models.slimmable import narrow
from us3l.params.method import Method
from us3l.utils.errors import UserError

WIDTHS = (1.0, 0.75, 0.5, 0.25)


# --- backbones ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenetv2"])
def test_imagenet_networks_compute_what_torchvisions_compute_with_the_same_weights(name: str) -> None:
    theirs = getattr(torchvision.models, name.replace("netv2", "net_v2"))()
    theirs.fc = theirs.classifier = nn.Identity()
    generator = torch.Generator().manual_seed(18)
    state = {
        name: value if value.dim() == 4 else torch.rand(value.shape, generator=generator).to(value.dtype) + 0.5
        for name, value in theirs.state_dict().items()
        if "num_batches" not in name
    }
    ours = Backbone(name, 3).build(1.0)
    renamed = dict(zip(state, ours_of_torchvisions(ours), strict=True)) if name == "mobilenetv2" else {}
    for network, names in ((theirs, {}), (ours, renamed)):
        content = {names.get(key, key): value for key, value in state.items()}
        missing, unexpected = network.load_state_dict(content, strict=False)
        assert not unexpected and all("num_batches" in name for name in missing)
    x = torch.randn(4, 3, 64, 64, generator=generator)
    for mode in (False, True, False):  # the last one sees the statistics that training left
        torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), rtol=1e-10, atol=1e-10)


def ours_of_torchvisions(network: nn.Module) -> list[str]:
    """torchvision nests MobileNetV2's layers differently, but in the same order."""
    return [name for name in network.state_dict() if "num_batches" not in name]


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
        ("mobilenetv1", 224, 1000, (3.207, 1.817, 0.819, 0.213), (569, 325, 149, 41), (1024, 768, 512, 256)),
        ("cifar-mobilenetv2", 32, 100, (2.224, 1.355, 0.688, 0.238), (88.1, 59.4, 28.1, 9.6), (1280,) * 4),
        ("resnet18", 224, 1000, (11.177, 6.290, 2.799, 0.702), (1814, 1043, 483, 136), (512, 384, 256, 128)),
        ("resnet50", 224, 1000, (23.508, 13.235, 5.893, 1.481), (4089, 2323, 1052, 278), (2048, 1536, 1024, 512)),
        ("mobilenetv2", 224, 1000, (2.224, 1.355, 0.688, 0.238), (301, 209, 97, 37), (1280,) * 4),
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
    """Expected counts are in millions; the MACs include a classifier of `classes`."""
    costs = [cost(Backbone(name, 3).build(width).eval(), torch.zeros(1, 3, size, size), classes) for width in WIDTHS]
    decimals = 1 if isinstance(macs[0], float) else 0
    assert tuple(round(each["parameters"] / 1e6, 3) for each in costs) == parameters
    assert tuple(round(each["macs"] / 1e6, decimals) for each in costs) == macs
    assert tuple(Backbone(name, 3).build(width).num_features for width in WIDTHS) == features


def test_linear_layers_of_a_vision_transformer_cost_what_the_official_ones_do() -> None:
    """Expected counts are in millions, without patch embedding (768 inputs), LayerNorms, class token and head."""
    linears, macs = [], []
    for width in WIDTHS:
        layers = [each for each in Backbone("vit-tiny", 3).build(width).modules() if isinstance(each, nn.Linear)]
        linears.append(sum(p.numel() for layer in layers for p in layer.parameters()))
        macs.append(197 * sum(layer.weight.numel() for layer in layers))
        whole, attention = 192 * (768 + 1 + 2 * 25 + 1), 12 * 2 * 197 * 197 * 192
        total = cost(Backbone("vit-tiny", 3).build(width).eval(), torch.zeros(1, 3, 224, 224), 1000)
        assert total["parameters"] == linears[-1] + whole
        assert total["macs"] == macs[-1] + 196 * 768 * 192 + attention + 192 * 1000
        assert Backbone("vit-tiny", 3).build(width).num_features == 192
    assert [round(each / 1e6, 3) for each in linears] == [5.329, 4.002, 2.675, 1.348]
    assert [round(each / 1e6) for each in macs] == [1046, 784, 523, 261]


TORCHVISIONS = {
    "norm1": "ln_1",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
    "blocks.": "encoder.layers.encoder_layer_",
    "cls_token": "class_token",
    "patch_embed.proj": "conv_proj",
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "heads"), [("vit-tiny", 6), ("vit-small", 12), ("vit-base", 12)])
def test_vision_transformers_compute_what_torchvisions_compute_with_the_same_weights(name: str, heads: int) -> None:
    generator, state, ours = torch.Generator().manual_seed(3), {}, Backbone(name, 3).build(1.0)
    size = ours.num_features
    theirs = torchvision.models.VisionTransformer(64, 16, 12, heads, size, 4 * size)
    theirs.heads = nn.Identity()
    with torch.no_grad():
        for key, p in ours.named_parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
            for own, other in TORCHVISIONS.items():
                key = key.replace(own, other)
            state[f"encoder.ln{key.removeprefix('norm')}" if key.startswith("norm.") else key] = p
    places = [(row, column) for row in range(4) for column in range(4)]
    frequencies = 1 / 10000 ** (torch.arange(size // 4, dtype=torch.float32) / (size / 4))
    halves = [torch.stack([at * frequencies for at in side]) for side in zip(*places, strict=True)]
    table = torch.cat([f(half) for half in halves for f in (torch.sin, torch.cos)], dim=1).double()
    state["encoder.pos_embedding"] = torch.cat((torch.zeros(1, size), table))[None]
    theirs.load_state_dict(state)
    x = torch.randn(2, 3, 64, 64, generator=generator)
    torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_a_narrow_vision_transformer_is_a_whole_one_blind_to_the_inputs_that_are_cut_off() -> None:
    whole, width = Backbone("vit-tiny", 3).build(1.0), 0.4
    slim = narrow(dict(whole.named_parameters()), Backbone("vit-tiny", 3).build(width))
    with torch.no_grad():
        for module in whole.modules():
            if isinstance(module, nn.Linear):
                module.weight[:, scale_channels(module.in_features, width) :] = 0
    x = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(slim(x), whole(x), rtol=1e-10, atol=1e-10)
    assert {key: p.shape for key, p in slim.named_parameters() if "weight" not in key} == {
        key: p.shape for key, p in whole.named_parameters() if "weight" not in key
    }


def test_the_positions_that_an_evaluation_keeps_serve_a_training_and_an_export() -> None:
    vit.positions.cache_clear()
    network = Backbone("vit-tiny", 1).build(0.25)
    with torch.inference_mode():
        network(torch.zeros(1, 1, 32, 32))
    kept = vit.positions(2, 2, network.cls_token.shape[-1], torch.float32, torch.device("cpu"))
    assert vit.positions.cache_info().hits == 1 and not kept.is_inference()


def test_vision_transformers_refuse_images_that_patches_do_not_cover() -> None:
    with pytest.raises(
        UserError, match=r"images of 32x28: .* multiples of 16; set the data set's resized_crop.size in"
    ):
        Backbone("vit-tiny", 1).build(0.25)(torch.zeros(2, 1, 32, 28))


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_backbone_takes_grey_images_and_gives_the_features_it_announces(name: str) -> None:
    network = Backbone(name, 1).build(0.25).eval()
    features = network(torch.zeros(2, 1, 32, 32))
    assert features.shape == (2, getattr(network, "num_features", 32 * 32))


# --- channels -------------------------------------------------------------------------------------------------------


def test_channels_are_the_nearest_multiple_of_eight_unless_that_loses_a_tenth() -> None:
    for channels in (16, 24, 32, 64, 96, 128, 256, 512, 1024, 2048):
        for width in torch.linspace(0.25, 1, 301, dtype=torch.float64).tolist():
            exact = channels * width
            nearest = min(range(8, 2049, 8), key=lambda multiple: (abs(multiple - exact), -multiple))
            assert scale_channels(channels, width) == (nearest if nearest >= 0.9 * exact else nearest + 8)


@pytest.mark.parametrize("channels", [32, 64, 128, 256, 512, 2048])
def test_wider_networks_never_have_fewer_channels(channels: int) -> None:
    counts = [scale_channels(channels, width / 1000) for width in range(250, 1001)]
    assert counts == sorted(counts)
    assert counts[-1] == channels


# --- heads ----------------------------------------------------------------------------------------------------------


def network(width: float = 1.0, **method: object) -> Network:
    settings = {"projector": {"hidden": 16, "output": 6}, "momentum": 0.99}
    widest = Backbone("small-resnet", 1).build(1.0)
    return Network(Backbone("small-resnet", 1).build(width), Method.model_validate(settings | method), widest)


SIMCLR = {"name": "simclr", "base_loss": "infonce"}
BYOL = {"name": "byol", "base_loss": "cosine"}
SIMSIAM = {"name": "simsiam", "base_loss": "cosine", "momentum": None}


def layers(head: nn.Module) -> list[str]:
    """Return each layer with its sizes, and a + where it has a bias, or a scale and a shift."""
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
    projection, prediction, _ = made(x, head)
    torch.testing.assert_close(projection, made.projector(made.backbone(x)))
    torch.testing.assert_close(prediction, made.get_submodule(head)(projection) if head else projection)
    assert prediction.shape == projection.shape == (4, 6)


def test_built_in_networks_keep_groups_of_images_apart_and_a_users_own_may_mix_them() -> None:
    assert all(Backbone(name, 3).separates_groups is True for name in BUILT_IN)
    assert Backbone("networks.mine:tiny", 3).separates_groups is False
