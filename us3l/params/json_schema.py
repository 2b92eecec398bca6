"""The JSON schema of params files, from which editors complete and check them (draft 2020-12)."""

from typing import Any

from us3l.params.params import Params

Schema = dict[str, Any]

RUNS = ("PretrainRun", "ReuseRun", "PruneRun", "ImportRun", "UntrainedRun")
LIKE_RUN = {
    "type": "string",
    "description": "Run that this one is like, RUN or STUDY/RUN; keys given here replace its.",
}
LIKE_METHOD = {"type": "string", "description": "Named method that this one is like; its other keys hold."}
WIDTHS_ALONE = {
    "anyOf": [{"type": "array", "items": {"type": "number", "minimum": 0.25, "maximum": 1}}, {"type": "null"}],
    "description": "Widths to train alone: a run NAME-w100 for 1.0, and so on. A row of a table names them as NAME.",
}


def params_schema() -> Schema:
    """Return the schema of a params file and of the files that it includes, as they are written.

    What a run or a method takes over from another one may be missing in it.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}
    definitions = schema["$defs"]
    del schema["required"]  # which an included file need not have
    for name in RUNS:
        _may_be_like_another(definitions[name], {"like": LIKE_RUN, "widths_alone": WIDTHS_ALONE})
    _may_be_like_another(definitions["Method"], {"like": LIKE_METHOD})
    named = {"type": "string", "description": "A named method."}
    training = definitions["PretrainRun"]["properties"]
    training["method"]["anyOf"] = [named, {"$ref": training["method"].pop("$ref")}]
    training["sampling"]["anyOf"].append({"type": "null"})  # in the place of one that another run has
    [runs] = definitions["Study"]["properties"]["runs"]["patternProperties"].values()
    runs["anyOf"] = runs.pop("oneOf")
    return schema


def _may_be_like_another(definition: Schema, keys: Schema) -> None:
    definition["properties"] = keys | definition["properties"]
    definition.pop("required", None)
