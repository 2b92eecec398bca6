"""Every operation against torchvision's own, image by image, with the same parameters."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from us3l.data.augment import color, draw, resample
from us3l.data.augment.views import OPERATIONS, augment, plain_view
from us3l.data.resident import Resident
from us3l.params import dataset as params
from us3l.params.dataset import Affine, Augmentation, Blur, ColorJitter, Normalize, ResizedCrop, Solarize
from us3l.utils.errors import UserError
from us3l.utils.philox import Purpose, RandomKey, uniform

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
AS_IT_IS = Normalize(mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])
CIFAR = Augmentation(
    resized_crop=ResizedCrop(size=32, scale=(0.2, 1.0)),
    color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8),
    grayscale=0.2,
    flip=0.5,
)
EVERYTHING = Augmentation(
    resized_crop=ResizedCrop(size=24, scale=(0.2, 1.0), interpolation="bicubic"),
    affine=Affine(degrees=20.0, translate=0.1, scale=(0.8, 1.2)),
    color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
    grayscale=0.2,
    blur=Blur(kernel_size=5),
    flip=0.5,
    solarize=Solarize(),
)


def photos(n: int, height: int = 32, width: int = 32, channels: int = 3) -> Tensor:
    """[n, height, width, channels] uint8: smooth shapes, noise, extremes and, first, a black and a plain grey image."""
    noise = np.random.default_rng(0).integers(0, 256, (n, 5, 5, 3), np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(each).resize((width, height), Image.BICUBIC)) for each in noise])
    images = torch.from_numpy(smooth)
    images[1::3] = torch.randint(0, 256, images[1::3].shape, generator=torch.manual_seed(0)).byte()
    images[0], images[1] = 0, 100
    return images[..., :channels].contiguous()


def floats(n: int, **shape: int) -> Tensor:
    return photos(n, **shape).permute(0, 3, 1, 2).float() / 255


def numbers(n: int, count: int, epoch: int = 0) -> Tensor:
    return uniform(RandomKey(7, Purpose.AUGMENT, epoch), torch.arange(n), count=count)


def each(x: Tensor, function: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """function(image, numbers of this image...) of every image."""
    return torch.stack([function(*row) for row in zip(x, *(each.tolist() for each in parameters), strict=True)])


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def view(
    images: Tensor, augmentation: Augmentation, samples: Tensor | None = None, view: int = 0, **key: int | Purpose
) -> Tensor:
    normalize = Normalize(mean=[0.0] * images.shape[3], std=[1.0] * images.shape[3])
    samples = torch.arange(len(images)) if samples is None else samples
    return augment(images, augmentation, normalize, RandomKey(0, Purpose.AUGMENT, 0)._replace(**key), samples, view)


# --- operations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (40, 27, 16), (19, 30, 33)])
def test_resized_crop_is_torchvisions(interpolation: str, height: int, width: int, size: int) -> None:
    x = floats(60, height=height, width=width)
    box = draw.box(numbers(60, 22), ResizedCrop(size=size, scale=(0.02, 1.0)), height, width)
    theirs = each(x, lambda i, *b: tv.resized_crop(i, *b, [size, size], MODES[interpolation]).clamp(0, 1), *box)
    close(resample.resample(x, resample.resampling(box, (height, width), (size, size), interpolation)), theirs)


@pytest.mark.parametrize("interpolation", MODES)
def test_resized_crop_is_within_two_grey_levels_of_pillow(interpolation: str) -> None:
    images = photos(180)[2::3]  # Pillow rounds between its passes, which makes noise another image
    box = draw.box(numbers(60, 22), ResizedCrop(size=32), 32, 32)
    theirs = []
    for image, top, left, height, width in zip(images, *box, strict=True):
        area = tuple(float(edge) for edge in (left, top, left + width, top + height))
        mode = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[interpolation]
        theirs.append(np.asarray(Image.fromarray(image.numpy()).crop(area).resize((32, 32), mode)))
    resampling = resample.resampling(box, (32, 32), (32, 32), interpolation)
    ours = resample.resample(images.permute(0, 3, 1, 2) / 255, resampling)
    close(255 * ours.permute(0, 2, 3, 1), torch.from_numpy(np.stack(theirs)).float(), 2.0)


@pytest.mark.parametrize(("width", "size"), [(40, 16), (19, 33)])
def test_boxes_that_are_read_from_right_to_left_flip(width: int, size: int) -> None:
    x, chosen = floats(60, height=30, width=width), torch.arange(60) % 3 > 0
    box = draw.box(numbers(60, 22), ResizedCrop(size=size, scale=(0.02, 1.0)), 30, width)
    crop, flipped = (
        resample.resample(x, resample.resampling(some, (30, width), (size, size), "bicubic"))
        for some in (box, draw.mirrored(box, chosen))
    )
    assert torch.equal(flipped[~chosen], crop[~chosen])
    close(flipped[chosen], crop[chosen].flip(3), 5e-6)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (21, 34)])
def test_affine_is_torchvisions(height: int, width: int) -> None:
    x = floats(40, height=height, width=width)
    motion = draw.motion(numbers(40, 4), Affine(degrees=180.0, translate=0.3, scale=(0.5, 2.0)), height, width)

    def theirs(image: Tensor, angle: float, right: float, down: float, zoom: float) -> Tensor:
        return tv.affine(image, angle, [right, down], zoom, [0.0, 0.0], InterpolationMode.BILINEAR)

    close(resample.affine(x, motion), each(x, theirs, *motion), 3e-5)


@pytest.mark.parametrize(
    ("operation", "theirs"), list(enumerate((tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)))
)
@pytest.mark.parametrize("channels", [1, 3])
def test_blends_are_torchvisions(operation: int, theirs: Callable[..., Tensor], channels: int) -> None:
    x, factor = floats(40, channels=channels), torch.linspace(0, 2, 40)
    close(
        color.blend_(x.clone(), color.mixture(torch.tensor(operation), factor)[..., None, None, None]),
        each(x, theirs, factor),
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_adjust_hue_is_torchvisions(channels: int) -> None:
    x, turn = floats(41, channels=channels), torch.linspace(-0.5, 0.5, 41)
    close(color.adjust_hue_(x.clone(), color.hue_distances(turn)[..., None, None, None]), each(x, tv.adjust_hue, turn))


def test_adjust_hue_is_torchvisions_where_channels_are_equal() -> None:
    levels = torch.tensor([0.0, 0.3, 0.3000001, 1.0])
    x = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 8, 8).repeat(13, 1, 1, 1)
    turn = torch.linspace(-0.5, 0.5, 13)
    close(color.adjust_hue_(x.clone(), color.hue_distances(turn)[..., None, None, None]), each(x, tv.adjust_hue, turn))


def test_color_jitter_applies_the_operations_in_each_images_order() -> None:
    x = floats(240)
    jitter = draw.jitter(
        numbers(240, 9), ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.9)
    )
    assert len(jitter.order.unique(dim=0)) == 24
    passes = color.jitter_passes(jitter)
    order = passes.before.argsort()
    ours = color.color_jitter_(x[order], color.JitterPasses(*(each[order] for each in passes)))
    close(ours, each(x, jittered, jitter.order, jitter.factors)[order])


def jittered(image: Tensor, order: list[int], factors: list[float]) -> Tensor:
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for operation in order:
        image = adjust[operation](image, factors[operation])
    return image


@pytest.mark.parametrize("channels", [1, 3])
def test_grayscale_and_solarize_are_torchvisions_where_chosen(channels: int) -> None:
    x, chosen = floats(20, channels=channels), torch.arange(20) % 3 > 0
    grey = each(x, lambda i, yes: tv.rgb_to_grayscale(i, channels) if yes else i, chosen)
    close(color.grayscale_(x.clone(), chosen), grey)
    assert torch.equal(color.grayscale_(x.clone(), chosen)[~chosen], x[~chosen])
    inverted = each(x, lambda i, yes: tv.solarize(i, 100 / 255) if yes else i, chosen)
    close(color.solarize(x, 100 / 255, chosen), inverted)


@pytest.mark.parametrize(("kernel_size", "height", "width"), [(1, 8, 8), (3, 32, 32), (9, 20, 33), (15, 8, 8)])
def test_gaussian_blur_is_torchvisions(kernel_size: int, height: int, width: int) -> None:
    x, sigma = floats(30, height=height, width=width), torch.linspace(0.1, 2, 30, dtype=torch.float64)
    close(
        resample.gaussian_blur(x, kernel_size, sigma), each(x, lambda i, s: tv.gaussian_blur(i, kernel_size, s), sigma)
    )


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize(
    ("height", "width", "resize", "crop"),
    [(32, 32, 36, 32), (50, 37, 24, 17), (37, 50, 24, None), (9, 9, None, 6), (8, 13, None, 11), (8, 8, None, None)],
)
def test_plain_view_is_torchvisions(
    interpolation: str, height: int, width: int, resize: int | None, crop: int | None
) -> None:
    images = photos(4, height, width)
    view = params.TestView(resize=resize, center_crop=crop, interpolation=interpolation)
    theirs = images.permute(0, 3, 1, 2) / 255
    theirs = tv.resize(theirs, [resize], MODES[interpolation]).clamp(0, 1) if resize else theirs
    theirs = tv.center_crop(theirs, [crop, crop]) if crop else theirs
    normalize = Normalize(mean=[0.4914, 0.4822, 0.4465], std=[0.2023, 0.1994, 0.2010])
    ours = plain_view(images, view, normalize)
    close(ours, tv.normalize(theirs, normalize.mean, normalize.std), 3e-5)


# --- distributions --------------------------------------------------------------------------------------------------


def same_distribution(ours: Tensor, theirs: Tensor) -> None:
    """Two-sample Kolmogorov-Smirnov: the largest distance of the distribution functions, p = 0.001."""
    values = torch.cat([ours, theirs]).unique()
    ranks = [torch.searchsorted(x.sort().values, values, right=True) / len(x) for x in (ours, theirs)]
    bound = 1.95 * (1 / len(ours) + 1 / len(theirs)) ** 0.5
    assert (ranks[0] - ranks[1]).abs().max() < bound


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (20, 40, (0.5, 1.0), (3 / 4, 4 / 3)),
        (8, 80, (0.9, 1.0), (0.9, 1.4)),
        (80, 8, (0.9, 1.0), (0.9, 1.4)),
        (4, 4, (0.001, 0.3), (3 / 4, 4 / 3)),
        (10, 11, (1.0, 1.0), (0.5, 2.0)),
    ],
)
def test_boxes_are_distributed_as_torchvisions(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    torch.manual_seed(0)
    get_params, image = transforms.RandomResizedCrop.get_params, torch.empty(1, height, width)
    theirs = torch.tensor([get_params(image, list(scale), list(ratio)) for _ in range(3000)])
    ours = torch.stack(draw.box(numbers(20_000, 22), ResizedCrop(size=8, scale=scale, ratio=ratio), height, width), 1)
    assert ours[:, 2:].min() > 0
    for column in range(4):
        same_distribution(ours[:, column], theirs[:, column])
    same_distribution(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    same_distribution(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3])
    same_distribution(2 * ours[:, 0] + ours[:, 2], 2 * theirs[:, 0] + theirs[:, 2])


def test_motions_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    get_params = transforms.RandomAffine.get_params
    drawn = [get_params([-15.0, 15.0], [0.1, 0.1], [0.85, 1.15], None, [40, 20]) for _ in range(3000)]
    theirs = torch.tensor([[angle, *shift, zoom] for angle, shift, zoom, _ in drawn])
    settings = Affine(degrees=15.0, translate=0.1, scale=(0.85, 1.15))
    for ours, column in zip(draw.motion(numbers(20_000, 4), settings, 20, 40), theirs.T, strict=True):
        same_distribution(ours.float(), column)


def test_jitters_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    module = transforms.ColorJitter(0.4, 1.2, 0.2, 0.1)
    ranges = (module.brightness, module.contrast, module.saturation, module.hue)
    theirs = torch.tensor([module.get_params(*ranges)[1:] for _ in range(3000)])
    settings = ColorJitter(brightness=0.4, contrast=1.2, saturation=0.2, hue=0.1)
    ours = draw.jitter(numbers(24_000, 9), settings)
    for column in range(4):
        same_distribution(ours.factors[:, column].float(), theirs[:, column])
    counts = ours.order.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 49.7  # chi-squared with 23 degrees of freedom, p = 0.001


def unrelated(*parameters: Tensor) -> None:
    correlation = torch.stack(parameters).double().corrcoef() - torch.eye(len(parameters))
    assert correlation.abs().max() < 4.5 / len(parameters[0]) ** 0.5


def test_parameters_of_an_image_are_unrelated() -> None:
    unrelated(*draw.motion(numbers(20_000, 4), Affine(degrees=15.0, translate=0.5, scale=(0.5, 2.0)), 99, 99))
    box = draw.box(numbers(20_000, 22), ResizedCrop(size=8, scale=(0.2, 0.4)), 99, 99)
    unrelated(box.top / (99.5 - box.height), box.left / (99.5 - box.width), box.height * box.width)
    unrelated(box.height * box.width, box.height / box.width)
    u = numbers(20_000, 9)
    jitter = draw.jitter(u, ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1))
    for operation in range(4):
        unrelated(u[:, 0], jitter.order.argsort(1)[:, operation], *jitter.factors.T)


def test_images_that_are_not_jittered_get_idle_factors() -> None:
    settings = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8)
    idle = (draw.jitter(numbers(20_000, 9), settings).factors == torch.tensor([1.0, 1.0, 1.0, 0.0])).all(1)
    assert abs(idle.double().mean() - 0.2) < 4 * (0.2 * 0.8 / 20_000) ** 0.5


@pytest.mark.parametrize(
    ("augmentation", "probability"),
    [
        (Augmentation(grayscale=0.3), 0.3),
        (Augmentation(flip=0.5), 0.5),
        (Augmentation(blur=Blur(kernel_size=3, sigma=(1.0, 2.0), probability=0.7)), 0.7),
        (Augmentation(solarize=Solarize(threshold=0.5, probability=0.2)), 0.2),
        (Augmentation(flip=1.0), 1.0),
    ],
)
def test_an_operation_happens_with_its_probability(augmentation: Augmentation, probability: float) -> None:
    image = photos(5, 8, 8)[4:].expand(4000, -1, -1, -1)
    changed = (view(image, augmentation) != view(image, Augmentation())).flatten(1).any(1)
    assert abs(changed.double().mean() - probability) <= 4 * (probability * (1 - probability) / 4000) ** 0.5


def test_sigmas_are_uniform() -> None:
    sigma = draw.sigma(numbers(20_000, 1), Blur(kernel_size=3, sigma=(0.1, 2.0)))
    same_distribution(sigma, torch.linspace(0.1, 2.0, 20_000, dtype=torch.float64))


# --- the whole ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", [EVERYTHING, CIFAR])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_is_torchvisions_operations_in_the_documented_order(augmentation: Augmentation, channels: int) -> None:
    images, size = photos(60, 40, 33, channels), augmentation.resized_crop.size
    samples, key = torch.arange(100, 160), RandomKey(3, Purpose.AUGMENT, 4)
    counts = {name: operation.numbers for name, operation in OPERATIONS.items() if getattr(augmentation, name)}
    drawn = uniform(key, samples, 1, sum(counts.values())).split(list(counts.values()), 1)
    u = dict(zip(counts, drawn, strict=True))
    box = draw.box(u["resized_crop"], augmentation.resized_crop, 40, 33)
    jitter = draw.jitter(u["color_jitter"], augmentation.color_jitter)
    normalize = Normalize(mean=[0.5] * channels, std=[0.25] * channels)
    theirs = []
    for i, image in enumerate(images.permute(0, 3, 1, 2) / 255):
        top, left, height, width = (int(each[i]) for each in box)
        mode = MODES[augmentation.resized_crop.interpolation]
        x = tv.resized_crop(image, top, left, height, width, [size, size], mode).clamp(0, 1)
        if augmentation.affine:
            angle, right, down, zoom = (
                float(each[i]) for each in draw.motion(u["affine"], augmentation.affine, size, size)
            )
            x = tv.affine(x, angle, [right, down], zoom, [0.0, 0.0], InterpolationMode.BILINEAR)
        x = jittered(x, jitter.order[i].tolist(), jitter.factors[i].tolist())
        x = tv.rgb_to_grayscale(x, channels) if u["grayscale"][i] < 0.2 else x
        if augmentation.blur and u["blur"][i, 0] < 0.5:
            x = tv.gaussian_blur(x, 5, float(draw.sigma(u["blur"][:, 1:], augmentation.blur)[i]))
        x = tv.horizontal_flip(x) if u["flip"][i] < 0.5 else x
        x = tv.solarize(x, 0.5) if augmentation.solarize and u["solarize"][i] < 0.2 else x
        theirs.append(tv.normalize(x, normalize.mean, normalize.std))
    difference = (augment(images, augmentation, normalize, key, samples, view=1) - torch.stack(theirs)).abs()
    assert (difference > 1e-4).sum() <= 3  # rounding may put a pixel on the other side of solarize's threshold
    assert difference.quantile(0.999) < 2e-5


@pytest.mark.parametrize("augmentation", [CIFAR, EVERYTHING])
def test_an_image_does_not_depend_on_the_images_beside_it(augmentation: Augmentation) -> None:
    images = photos(300)
    whole = view(images, augmentation)
    for some in (torch.tensor([5]), torch.arange(299, -1, -1), torch.tensor([3, 250, 3, 17])):
        assert torch.equal(view(images[some], augmentation, samples=some), whole[some])


@pytest.mark.parametrize("augmentation", [CIFAR, EVERYTHING.model_copy(update={"solarize": None})])
def test_a_batch_as_a_whole_as_on_a_gpu_gives_the_same_views(
    augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photos(300)
    in_slices = view(images, augmentation)
    monkeypatch.setattr(color, "_slices", lambda before: [slice(None)] * 7)
    monkeypatch.setattr("us3l.data.augment.views.in_chunks", lambda x, parameters, view: view(x, parameters))
    close(view(images, augmentation), in_slices, 1e-6)


def test_views_that_are_made_together_are_those_made_one_by_one() -> None:
    images, samples = photos(100), torch.arange(99, 9, -1)
    key = RandomKey(0, Purpose.AUGMENT, 0)
    augmentations = [CIFAR, CIFAR, EVERYTHING, CIFAR]
    [seen] = Resident(images).augmented([samples], augmentations, AS_IT_IS, key)
    for number, (ours, augmentation) in enumerate(zip(seen, augmentations, strict=True)):
        assert torch.equal(ours, view(images[samples], augmentation, samples=samples, view=number))


def test_seed_purpose_epoch_sample_and_view_change_what_happens() -> None:
    images = photos(4)[3:].expand(4, -1, -1, -1)
    changes = [
        {"seed": 1},
        {"purpose": Purpose.LINEAR_AUGMENT},
        {"epoch": 1},
        {"samples": torch.arange(4, 8)},
        {"view": 1},
    ]
    views = torch.cat([view(images, CIFAR, **change) for change in [{}, *changes]])
    assert len(views.unique(dim=0)) == 24
    assert torch.equal(view(images, CIFAR), views[:4])


def test_without_operations_an_image_is_only_normalized() -> None:
    images = photos(3, 8, 8, 1)
    key, normalize = RandomKey(0, Purpose.AUGMENT, 0), Normalize(mean=[0.3], std=[0.4])
    ours = augment(images, Augmentation(), normalize, key, torch.arange(3))
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    close(ours, (images.permute(0, 3, 1, 2) / 255 - 0.3) / 0.4)


def test_pixels_stay_in_range() -> None:
    x = view(photos(300), EVERYTHING)
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6


def test_a_blur_wider_than_the_images_is_refused() -> None:
    with pytest.raises(UserError, match=r"blur\.kernel_size is 17, too wide for images of 8x8 pixels"):
        view(photos(2, 8, 8), Augmentation(blur=Blur(kernel_size=17)))


@pytest.mark.parametrize(
    ("alone", "theirs"),
    [
        ("brightness", tv.adjust_brightness),
        ("contrast", tv.adjust_contrast),
        ("saturation", tv.adjust_saturation),
        ("hue", tv.adjust_hue),
    ],
)
def test_a_jitter_of_one_setting_alone_is_torchvisions(alone: str, theirs: Callable[..., Tensor]) -> None:
    images = photos(40)
    settings = ColorJitter.model_validate({alone: 0.4})
    column = ["brightness", "contrast", "saturation", "hue"].index(alone)
    factors = draw.jitter(numbers_of(40), settings).factors
    assert len(factors[:, column].unique()) == 40
    x = images.permute(0, 3, 1, 2) / 255
    expected = each(x, theirs, factors[:, column])
    assert ((expected - x).abs().amax((1, 2, 3)) > 0.01).sum() > 30
    close(view(images, Augmentation(color_jitter=settings)), expected)


def numbers_of(count: int) -> Tensor:
    """What `view` draws for a color jitter alone."""
    return uniform(RandomKey(0, Purpose.AUGMENT, 0), torch.arange(count), 0, 9)
