"""`us3l list`: the names that a params file may use, each with a few words."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from us3l.params.backbone import Backbone
from us3l.params.method import ANY_TEACHER, BY_LABELS, OTHER_TEACHER, WITHOUT_TEACHER, FeatureDistillation, Method
from us3l.params.reading import load

Names = dict[str, str]


def show_names(kind: str, file: Path) -> None:
    """Print the names of a kind, a line each. Raises UserError where the params file of methods or studies is wrong."""
    names = KINDS[kind](file)
    width = max(map(len, names), default=0)
    for name, words in names.items():
        print(f"{name.ljust(width)}  {words}".rstrip())


def _backbones(file: Path) -> Names:
    own = {"pixels": "the image itself, for untrained runs", "MODULE:FUNCTION": "your own, a function of the width"}
    return dict.fromkeys(get_args(Backbone), "") | own


def _losses(file: Path) -> Names:
    needs = {
        ANY_TEACHER: "compares with a teacher: a momentum encoder, a frozen network or the widest network",
        OTHER_TEACHER: "compares with another network: a momentum encoder or a frozen one",
        WITHOUT_TEACHER: "compares two views, without a teacher",
        BY_LABELS: "of supervised training",
    }
    maps = get_args(FeatureDistillation.model_fields["loss"].annotation)
    of_maps = {f"feature_distillation.loss: {name}": "compares feature maps" for name in maps}
    return {name: words for names, words in needs.items() for name in names} | of_maps


def _methods(file: Path) -> Names:
    heads = {f"name: {name}": "heads" for name in get_args(Method.model_fields["name"].annotation)}
    named = {
        name: f"{file}: {method.name}, {method.base_loss}, {method.distillation_loss or 'no distillation'}"
        for name, method in load(file).methods.items()
    }
    return heads | named


def _studies(file: Path) -> Names:
    params = load(file)
    return {
        name: f"{len(study.runs)} runs, {len(study.seeds)} seeds, {len(study.widths)} widths, tables "
        f"{', '.join(study.tables) or 'none'}{' (built)' if name in params.build else ''}"
        for name, study in params.studies.items()
    }


def _protocols(file: Path) -> Names:
    return {name: protocol.kind for name, protocol in load(file).protocols.items()}


KINDS: dict[str, Callable[[Path], Names]] = {
    "backbones": _backbones,
    "losses": _losses,
    "methods": _methods,
    "studies": _studies,
    "protocols": _protocols,
}
