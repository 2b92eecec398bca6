"""Data sets in params.yaml: their sources and the views of their images."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict, model_validator

from us3l.params.schema import (
    AtLeastTwo,
    Float,
    Matching,
    NonNegativeFloat,
    OpenUnitInterval,
    Pixels,
    PositiveInt,
    Probability,
    Range,
    StrictModel,
    Text,
    UnitInterval,
    error_at,
    rising,
)


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("must be odd")
    return number


Url = Annotated[str, Matching(r"(https?|file)://\S+", "an https:// or file:// address")]


class Digits(StrictModel):
    """The 1,797 handwritten digits (8x8, grey) that ship with scikit-learn; the split is stratified by class."""

    kind: Literal["digits"]
    """The handwritten digits of scikit-learn."""
    test_fraction: OpenUnitInterval
    """Fraction of each class to hold out as the test set."""


class CifarSubset(StrictModel):
    """The first `classes` by name; of each, the `train` and `test` images whose pixels have the smallest SHA-256.

    The images and their order do not depend on the archive's order, so a rebuilt archive gives the same data.
    """

    classes: AtLeastTwo
    """Number of classes, the first by name."""
    train: PositiveInt
    """Training images of each class."""
    test: PositiveInt
    """Test images of each class."""


class Cifar(StrictModel):
    """The official python archive of CIFAR-10 or CIFAR-100, or a part of it, from an https:// or file:// address."""

    kind: Literal["cifar10", "cifar100"]
    """The data set of the archive."""
    url: Url
    """Address of the official python archive, https:// or file://."""
    md5: Annotated[str, Matching(r"[0-9a-f]{32}", "32 hexadecimal digits, in lower case")]
    """MD5 of the archive, in hexadecimal digits."""
    subset: CifarSubset | None = None
    """The part of the data set to take; null takes all of it."""


class Folder(StrictModel):
    """A folder of class folders. Each image is resized (shorter side) and centre-cropped to a square when prepared.

    Without `image_size` the images stay in their files, which are decoded at each use: for data sets larger than the
    memory. Give either a `test` folder with the same classes, or the fraction of each class to hold out. `subset` is a
    file with one image name per line: only these are trained on. `page` says where to get the images.
    """

    kind: Literal["folder"]
    """A folder of class folders."""
    train: Text
    """Folder of the training images, absolute or from the project's folder."""
    test: Text | None = None
    """Folder of the test images, with the same classes."""
    test_fraction: OpenUnitInterval | None = None
    """Fraction of each class to hold out as the test set, where there is no test folder."""
    subset: Text | None = None
    """File that names the images to train on, one per line; null takes all."""
    image_size: Pixels | None = None
    """Height and width in pixels to resize and crop to when prepared; null leaves images in their files."""
    page: Annotated[Url | None, Field(exclude=True)] = None
    """Web page to get the images from; it changes no result."""

    @model_validator(mode="after")
    def _one_test_set(self) -> "Folder":
        if (self.test is None) == (self.test_fraction is None):
            raise ValueError("give exactly one of test and test_fraction")
        if self.subset is not None and self.test is None:
            raise error_at("subset", "needs a test folder: what test_fraction holds out may be on the list")
        return self


class Transfer(StrictModel):
    """A data set for transfer learning as torchvision lays it out below `root`; see us3l/data/sources/transfer.py.

    Each image is resized and cropped as those of a folder, or stays in its file without `image_size`. Caltech-101,
    which has no official split, takes 30 training images of each class, or holds out a fraction.
    """

    kind: Literal["aircraft", "caltech101", "dtd", "flowers102", "food101", "pets"]
    """The data set."""
    root: Text
    """Folder that torchvision reads it from."""
    image_size: Pixels | None = None
    """Height and width in pixels to resize and crop to when prepared; null leaves images in their files."""
    test_fraction: OpenUnitInterval | None = None
    """Fraction of each class to hold out (caltech101 only); null takes 30 training images of each class."""
    download: Annotated[bool, Strict(), Field(exclude=True)] = False
    """Let torchvision download what is missing; it changes no result."""

    @model_validator(mode="after")
    def _official_split(self) -> "Transfer":
        if self.test_fraction is not None and self.kind != "caltech101":
            raise error_at("test_fraction", f"is for caltech101 only: {self.kind} has an official test set")
        return self


class ResizedCrop(StrictModel):
    """torchvision's RandomResizedCrop: a random box of the image, resized to `size` x `size`."""

    size: Pixels
    """Height and width of the result in pixels."""
    scale: Annotated[tuple[UnitInterval, UnitInterval], AfterValidator(rising)] = (0.08, 1.0)
    """Range of the box's area, as a share of the image's."""
    ratio: Range = (3 / 4, 4 / 3)
    """Range of the box's aspect ratio, width / height."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter that resizes the box."""


class Affine(StrictModel):
    """torchvision's RandomAffine without shear: rotation, shift and zoom."""

    degrees: Annotated[Float, Field(ge=0, le=180)] = 0.0
    """Largest rotation in degrees, in either direction."""
    translate: Probability = 0.0
    """Largest shift as a share of the image's side."""
    scale: Range = (1.0, 1.0)
    """Range of the zoom factor."""


class ColorJitter(StrictModel):
    """torchvision's ColorJitter, four operations in random order, applied with a probability."""

    brightness: NonNegativeFloat = 0.0
    """Largest relative change of brightness."""
    contrast: NonNegativeFloat = 0.0
    """Largest relative change of contrast."""
    saturation: NonNegativeFloat = 0.0
    """Largest relative change of saturation."""
    hue: Annotated[Float, Field(ge=0, le=0.5)] = 0.0
    """Largest change of hue, in turns of the colour circle."""
    probability: Probability = 1.0
    """Probability that a view is jittered."""


class Blur(StrictModel):
    """torchvision's GaussianBlur with sigma in pixels, applied with a probability."""

    kernel_size: Annotated[Pixels, AfterValidator(_odd)]
    """Height and width of the kernel in pixels, odd."""
    sigma: Range = (0.1, 2.0)
    """Range of the standard deviation in pixels."""
    probability: Probability = 0.5
    """Probability that a view is blurred."""


class Solarize(StrictModel):
    """torchvision's RandomSolarize: values at or above the threshold (in [0, 1]) are inverted."""

    threshold: Probability = 0.5
    """Smallest value in [0, 1] that is inverted."""
    probability: Probability = 0.2
    """Probability that a view is solarized."""


class Augmentation(StrictModel):
    """The operations on one view of a training image, applied in this order; those left out are not applied."""

    resized_crop: ResizedCrop | None = None
    """Random crop, resized; null takes the whole image."""
    affine: Affine | None = None
    """Random rotation, shift and zoom."""
    color_jitter: ColorJitter | None = None
    """Random brightness, contrast, saturation and hue."""
    grayscale: Probability = 0.0
    """Probability that a view is turned grey."""
    blur: Blur | None = None
    """Random Gaussian blur."""
    flip: Probability = 0.0
    """Probability that a view is mirrored."""
    solarize: Solarize | None = None
    """Random solarization."""


class TestView(StrictModel):
    """The view of a test image: the shorter side resized, then the centre cropped; each step may be left out."""

    resize: Pixels | None = None
    """Length in pixels to resize the shorter side to; null does not resize."""
    center_crop: Pixels | None = None
    """Height and width in pixels of the centre crop; null does not crop."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter that resizes the image."""

    @model_validator(mode="after")
    def _crop_fits(self) -> "TestView":
        if self.resize and self.center_crop and self.center_crop > self.resize:
            raise error_at("center_crop", f"must be at most resize, {self.resize}, not {self.center_crop}")
        return self


class Normalize(StrictModel):
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: list[Probability]
    """Mean of each channel, of pixels in [0, 1]."""
    std: list[UnitInterval]
    """Standard deviation of each channel, of pixels in [0, 1]."""


class Views(StrictModel):
    """The views of a data set's images: two for pretraining, one for the linear classifier, one for the test."""

    normalize: Normalize
    """Normalization of all views."""
    pretrain: Annotated[list[Augmentation], Field(min_length=2, max_length=2)]
    """Augmentations of the two views of pretraining."""
    linear: Augmentation = Augmentation()
    """Augmentation of the linear classifier's training images, and of calibration."""
    test: TestView = TestView()
    """View of the test images."""


class Dataset(StrictModel):
    """A data set: the source of its images, and their views."""

    source: Annotated[Digits | Cifar | Folder | Transfer, Field(discriminator="kind")]
    """Source of the images."""
    views: Views
    """Views of the images."""

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return 1 if self.source.kind == "digits" else 3

    @model_validator(mode="after")
    def _normalizes_each_channel(self) -> "Dataset":
        for key, values in self.views.normalize:
            if len(values) != self.channels:
                what = f"must have one entry for each channel of the images, {self.channels}, not {values}"
                raise error_at(f"views.normalize.{key}", what)
        return self
