"""The language of params files: named methods, runs that are like others, and one run for each width alone.

Abbreviations are expanded to plain values; malformed ones stay as they are, for the schema to refuse.
"""

from typing import Any

from us3l.params.references import Address
from us3l.params.sampling import width_label
from us3l.params.schema import MAX_CHAIN, suggestion

Content = dict[str, Any]
MAX_KEYS = 50  # of a run or a method, which have up to 16, with those that it is like
MAX_WIDTHS = 100  # of a run with `widths_alone`
MAX_RUNS = 5_000  # of all studies


class LanguageError(ValueError):
    """An abbreviation that cannot be expanded: the key in the file, and what would be right."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def expand(content: Content) -> Content:
    """Expand `like`, names of methods and `widths_alone`. Raises LanguageError."""
    methods = _expanded_methods(_mapping(content.get("methods")))
    studies = {name: study for name, study in _mapping(content.get("studies")).items() if isinstance(study, dict)}
    declared = {
        (study, name): run
        for study, settings in studies.items()
        for name, run in _mapping(settings.get("runs")).items()
        if isinstance(run, dict)
    }
    runs = {address: _with_method(dict(_like(address, declared)), methods, _key(address)) for address in declared}
    if sum(_count(run) for run in runs.values()) > MAX_RUNS:
        raise LanguageError("studies", f"have more than {MAX_RUNS} runs, counting those of each width")
    expanded = {name: study | _expanded_study(name, study, runs) for name, study in studies.items()}
    with_methods = {"methods": methods} if methods else {}
    return content | with_methods | ({"studies": content["studies"] | expanded} if studies else {})


def _expanded_methods(methods: Content) -> Content:
    """Expand the named methods, each of which may be like an earlier one."""
    expanded: Content = {}
    for name, method in methods.items():
        expanded[name] = _method(method, expanded, f"methods.{name}") if isinstance(method, dict) else method
    return methods | expanded


def _with_method(run: Content, methods: Content, key: str) -> Content:
    return run | {"method": _method(run["method"], methods, f"{key}.method")} if "method" in run else run


def _method(method: Any, methods: Content, key: str) -> Any:
    """Expand a method: a name, or a mapping that changes another method (`like`)."""
    if isinstance(method, str):
        return _named(method, methods, key)
    if isinstance(method, dict) and isinstance(method.get("like"), str):
        changes = {name: value for name, value in method.items() if name != "like"}
        return _require_few_keys(_named(method["like"], methods, f"{key}.like") | changes, key)
    return method


def _named(name: str, methods: Content, key: str) -> Content:
    if not isinstance(methods.get(name), dict):
        raise LanguageError(key, f"no method is called {name!r}; {suggestion(name, list(methods))}")
    return methods[name]


def _like(address: Address, declared: dict[Address, Content], seen: tuple[Address, ...] = ()) -> Content:
    """Return a run with the keys of the run that it is like; its own keys replace those, whole."""
    run = declared[address]
    if not isinstance(run.get("like"), str):
        return run
    chain = [*seen, address]
    study, _, name = run["like"].rpartition("/")
    other = study or address[0], name
    if other in chain:
        circle = " like ".join("/".join(each) for each in [*chain, other])
        raise LanguageError(f"{_key(chain[0])}.like", f"goes round in a circle: {circle}")
    if len(chain) > MAX_CHAIN:
        raise LanguageError(
            f"{_key(chain[0])}.like", f"is like a run that is like another, more than {MAX_CHAIN} times"
        )
    if other not in declared:
        known = ["/".join(each) for each in declared] if study else [name for of, name in declared if of == address[0]]
        raise LanguageError(
            f"{_key(address)}.like", f"no run is called {run['like']!r}; {suggestion(run['like'], known)}"
        )
    changes = {name: value for name, value in run.items() if name != "like"}
    return _require_few_keys(_like(other, declared, tuple(chain)) | changes, _key(address))


def _require_few_keys(content: Content, key: str) -> Content:
    """Return the content; where each is like the one before, keys would grow without bound."""
    if len(content) > MAX_KEYS:
        raise LanguageError(key, f"has {len(content)} keys with those that it is like, and may have {MAX_KEYS}")
    return content


def _expanded_study(study: str, settings: Content, runs: dict[Address, Content]) -> Content:
    """Return the runs and tables of a study, where a run with `widths_alone` has become one run per width."""
    expanded: Content = {}
    alone: dict[str, dict[float, str]] = {}
    for name, run in _mapping(settings.get("runs")).items():
        full = runs.get((study, name), run)
        if widths := _alone(full, _key((study, name))):
            alone[name] = {width: f"{name}-{width_label(width)}" for width in widths}
            expanded |= {alone[name][width]: of_width for width, of_width in widths.items()}
        else:
            expanded[name] = full
    tables = {name: _with_rows(table, alone) for name, table in _mapping(settings.get("tables")).items()}
    found = {"runs": expanded, "tables": tables}
    return {key: value for key, value in found.items() if isinstance(settings.get(key), dict)}


def _count(run: Content) -> int:
    """Count the runs that a run stands for: one for each width of `widths_alone`, if it has any."""
    widths = run.get("widths_alone")
    return len(widths) if isinstance(widths, list) else 1


def _alone(run: Any, key: str) -> dict[float, Content] | None:
    """Remove `widths_alone` from a run and return its runs by width; None where it has none."""
    if not isinstance(run, dict) or "widths_alone" not in run:
        return None
    widths, key = run.pop("widths_alone"), f"{key}.widths_alone"
    if widths is None:
        return None
    if run.get("sampling") is not None:
        raise LanguageError(key, "says what sampling says: leave one of them out, or set it to null")
    numbers = isinstance(widths, list) and all(type(each) in (int, float) and 0.25 <= each <= 1 for each in widths)
    if not numbers or not widths or len(set(widths)) < len(widths):
        raise LanguageError(key, f"must be a list of different widths from 0.25 to 1.0, not {widths}")
    if len(widths) > MAX_WIDTHS:
        raise LanguageError(key, f"lists {len(widths)} widths, and may list {MAX_WIDTHS}")
    return {float(width): run | {"sampling": width} for width in widths}


def _with_rows(table: Any, alone: dict[str, dict[float, str]]) -> Any:
    """Return a table in which a row of a run with `widths_alone` names the run of each width."""
    if not isinstance(table, dict) or not isinstance(table.get("rows"), list):
        return table
    return table | {"rows": [_with_runs(row, alone) for row in table["rows"]]}


def _with_runs(row: Any, alone: dict[str, dict[float, str]]) -> Any:
    if not isinstance(row, dict) or not isinstance(row.get("runs"), str) or row["runs"] not in alone:
        return row
    return row | {"runs": {str(width): name for width, name in alone[row["runs"]].items()}}


def _mapping(value: Any) -> Content:
    return value if isinstance(value, dict) else {}


def _key(address: Address) -> str:
    study, run = address
    return f"studies.{study}.runs.{run}"
