"""Data sets in params.yaml: where they come from and how their images are seen."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict, model_validator

from us3l.params.schema import (
    AtLeastTwo,
    Float,
    NonNegativeFloat,
    OpenUnitInterval,
    PositiveInt,
    Probability,
    Range,
    StrictModel,
    UnitInterval,
    error_at,
    matching,
    rising,
)


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("must be odd")
    return number


Address = Annotated[str, matching(r"(https?|file)://\S+", "an https:// or file:// address")]


class Digits(StrictModel):
    """The 1,797 handwritten digits (8x8, grey) that ship with scikit-learn, split by class."""

    kind: Literal["digits"]
    test_fraction: OpenUnitInterval


class CifarSubset(StrictModel):
    """The first `classes` by name; of each, `train` and `test` images: those whose pixels have the smallest SHA-256.

    They are the same images in the same order whatever order the archive has, so a rebuilt one gives the same data.
    """

    classes: AtLeastTwo
    train: PositiveInt
    test: PositiveInt


class Cifar(StrictModel):
    """The official python archive of CIFAR-10 or CIFAR-100, from an https:// or file:// address, or part of it."""

    kind: Literal["cifar10", "cifar100"]
    url: Address
    md5: Annotated[str, matching(r"[0-9a-f]{32}", "32 hexadecimal digits, in lower case")]
    subset: CifarSubset | None = None


class Folder(StrictModel):
    """A folder of class folders. Each image is resized (shorter side) and centre-cropped to a square when prepared.

    Without `image_size` the images stay in their files, which are decoded whenever they are seen: for data sets that no
    memory holds. Give either a `test` folder with the same classes, or the fraction of each class to hold out. `subset`
    is a file with the name of an image a line: only these are trained on. `page` says where the images can be had.
    """

    kind: Literal["folder"]
    train: str
    test: str | None = None
    test_fraction: OpenUnitInterval | None = None
    subset: str | None = None
    image_size: PositiveInt | None = None
    page: Annotated[Address | None, Field(exclude=True)] = None

    @model_validator(mode="after")
    def _one_test_set(self) -> "Folder":
        if (self.test is None) == (self.test_fraction is None):
            raise ValueError("give exactly one of test and test_fraction")
        if self.subset is not None and self.test is None:
            raise error_at("subset", "needs a test folder: what test_fraction holds out may be on the list")
        return self


class Transfer(StrictModel):
    """A data set of transfer learning as torchvision lays it out below `root`; see us3l/data/sources/transfer.py.

    Each image is resized and cropped as those of a folder, or stays in its file without `image_size`. Caltech-101,
    which has no official split, takes 30 training images of each class, or holds out a fraction. `download` says only
    where the files may come from: no recipe has it.
    """

    kind: Literal["aircraft", "caltech101", "dtd", "flowers102", "food101", "pets"]
    root: str
    image_size: PositiveInt | None = None
    test_fraction: OpenUnitInterval | None = None
    download: Annotated[bool, Strict(), Field(exclude=True)] = False

    @model_validator(mode="after")
    def _official_split(self) -> "Transfer":
        if self.test_fraction is not None and self.kind != "caltech101":
            raise error_at("test_fraction", f"is for caltech101 only: {self.kind} has an official test set")
        return self


class ResizedCrop(StrictModel):
    """torchvision's RandomResizedCrop: a box of this share of the area and aspect ratio, resized to size x size."""

    size: PositiveInt
    scale: Annotated[tuple[UnitInterval, UnitInterval], AfterValidator(rising)] = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class Affine(StrictModel):
    """torchvision's RandomAffine without shear: rotation in degrees, shift as a share of the side, zoom."""

    degrees: Annotated[Float, Field(ge=0, le=180)] = 0.0
    translate: Probability = 0.0
    scale: Range = (1.0, 1.0)


class ColorJitter(StrictModel):
    """torchvision's ColorJitter, its four operations in random order, applied with a probability."""

    brightness: NonNegativeFloat = 0.0
    contrast: NonNegativeFloat = 0.0
    saturation: NonNegativeFloat = 0.0
    hue: Annotated[Float, Field(ge=0, le=0.5)] = 0.0
    probability: Probability = 1.0


class Blur(StrictModel):
    """torchvision's GaussianBlur with sigma in pixels, applied with a probability."""

    kernel_size: Annotated[PositiveInt, AfterValidator(_odd)]
    sigma: Range = (0.1, 2.0)
    probability: Probability = 0.5


class Solarize(StrictModel):
    """torchvision's RandomSolarize: values at or above the threshold (in [0, 1]) are inverted."""

    threshold: Probability = 0.5
    probability: Probability = 0.2


class Augmentation(StrictModel):
    """What happens to one view of a training image, in this order; what is left out does not happen."""

    resized_crop: ResizedCrop | None = None
    affine: Affine | None = None
    color_jitter: ColorJitter | None = None
    grayscale: Probability = 0.0
    blur: Blur | None = None
    flip: Probability = 0.0
    solarize: Solarize | None = None


class TestView(StrictModel):
    """What happens to a test image: resize the shorter side, then cut the centre; nothing when both are left out."""

    resize: PositiveInt | None = None
    center_crop: PositiveInt | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @model_validator(mode="after")
    def _crop_fits(self) -> "TestView":
        if self.resize and self.center_crop and self.center_crop > self.resize:
            raise error_at("center_crop", f"must be at most resize, {self.resize}, not {self.center_crop}")
        return self


class Normalize(StrictModel):
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: list[Probability]
    std: list[UnitInterval]


class Views(StrictModel):
    """How a data set's images are seen: two views for pretraining, one for the linear classifier, one for the test."""

    normalize: Normalize
    pretrain: Annotated[list[Augmentation], Field(min_length=2, max_length=2)]
    linear: Augmentation = Augmentation()
    test: TestView = TestView()


class Dataset(StrictModel):
    """Where a data set comes from and how its images are seen."""

    source: Annotated[Digits | Cifar | Folder | Transfer, Field(discriminator="kind")]
    views: Views

    @property
    def channels(self) -> int:
        """Those of its images."""
        return 1 if self.source.kind == "digits" else 3

    @model_validator(mode="after")
    def _normalizes_each_channel(self) -> "Dataset":
        for key, values in self.views.normalize:
            if len(values) != self.channels:
                what = f"must have one entry for each channel of the images, {self.channels}, not {values}"
                raise error_at(f"views.normalize.{key}", what)
        return self
