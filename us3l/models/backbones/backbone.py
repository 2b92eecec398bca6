"""A backbone by its name in params.yaml: built in, or a user's own `module:function`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from us3l.models.backbones.custom import custom_network, require_features
from us3l.models.backbones.registry import BUILT_IN
from us3l.models.meta import on_meta_device
from us3l.utils.errors import UserError
from us3l.utils.source import is_custom


@dataclass(frozen=True)
class Backbone:
    """A family of plain networks, one for each width, for normalized images [B, in_channels, H, W].

    image_size: H and W, used to count the features of a custom network that has no `num_features`.
    """

    name: str
    in_channels: int
    image_size: tuple[int, int] | None = None

    @property
    def separates_groups(self) -> bool:
        """True if one pass may hold several groups of images: a custom network may mix them."""
        return not is_custom(self.name)

    def build(self, width: float) -> nn.Module:
        """Build the network of a width, from images to features [B, num_features].

        Raises UserError where a custom network cannot be built, or is not the leading part of its widest one.
        """
        if is_custom(self.name):
            return custom_network(self.name, width, self.image_size and (self.in_channels, *self.image_size))
        return BUILT_IN[self.name](width=width, in_channels=self.in_channels)

    def fitted_to(self, load_image: Callable[[], Tensor], widths: Iterable[float]) -> "Backbone":
        """Return this backbone for images like the loaded one, [1, C, H, W]; only custom networks depend on it.

        Raises UserError where the custom network of one of the widths does not accept them.
        """
        if self.separates_groups:
            return self
        image = load_image()
        for width in widths:
            require_features(f"{self.name} at width {width}", self.build(width), image)
        return Backbone(self.name, image.shape[1], (image.shape[2], image.shape[3]))

    def require_widths(self, widths: Iterable[float], remedy: str) -> None:
        """Raise UserError, ending in `remedy`, where a custom network cannot be built at one of the widths."""
        if self.separates_groups:
            return
        for width in widths:
            try:
                on_meta_device(partial(self.build, width))
            except UserError as error:
                raise UserError(f"{error}; {remedy}") from None
