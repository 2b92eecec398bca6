"""What a deployed network needs besides its weights: the content of `config.json`."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from us3l.params.dataset import Normalize, TestView
from us3l.utils.errors import UserError
from us3l.utils.reading import read_json


@dataclass(frozen=True)
class Config:
    """The architecture of a network, the images that it takes, and where it is from.

    image: [C, H, W] as the network was evaluated on it, None if it never was; prepared_size: height and width in pixels
    to which images are resized and cropped before the test view, None if they are not; classes: None without a
    classifier; facts: accuracy, costs and provenance, for people and hubs.
    """

    architecture: str
    width: float
    in_channels: int
    normalize: Normalize
    image: list[int] | None = None
    prepared_size: int | None = None
    test_view: TestView | None = None
    classes: list[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with the facts among the other keys."""
        views = {"normalize": self.normalize.model_dump(), "test_view": self.test_view and self.test_view.model_dump()}
        own = asdict(self) | views
        return own | own.pop("facts")


def read_config(folder: Path) -> Config:
    """Read the `config.json` of an exported folder. Raises UserError where it is missing or not one of ours."""
    path = folder / "config.json"
    try:
        content = read_json(path)
        content["normalize"] = Normalize.model_validate(content["normalize"])
        content["test_view"] = content["test_view"] and TestView.model_validate(content["test_view"])
        own = {each.name: content.pop(each.name) for each in fields(Config) if each.name != "facts"}
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror}); give a folder that `us3l export` wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: not a config that `us3l export` wrote ({what}); export again") from None
    return Config(**own, facts=content)
