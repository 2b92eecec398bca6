"""Protocols of the evaluation of each width, in params.yaml."""

from typing import Annotated, Any, get_args

from pydantic import Discriminator, Tag

from us3l.params.protocols.finetune import Finetune
from us3l.params.protocols.knn import Knn
from us3l.params.protocols.linear import FeaturesLinear, Linear


def _kind(protocol: Any) -> Any:
    """Return the kind of a protocol; the default is linear."""
    if isinstance(protocol, dict):
        return protocol.get("kind", "linear")
    return getattr(protocol, "kind", "linear")


Protocol = Annotated[
    Annotated[Linear, Tag("linear")]
    | Annotated[FeaturesLinear, Tag("features-linear")]
    | Annotated[Knn, Tag("knn")]
    | Annotated[Finetune, Tag("finetune")],
    Discriminator(
        _kind,
        custom_error_type="at_key",
        custom_error_message="must be 'linear', 'features-linear', 'knn' or 'finetune'",
        custom_error_context={"key": "kind"},
    ),
]

KINDS: dict[str, type[Linear | FeaturesLinear | Knn | Finetune]] = {
    get_args(protocol.model_fields["kind"].annotation)[0]: protocol
    for protocol in (Linear, FeaturesLinear, Knn, Finetune)
}
