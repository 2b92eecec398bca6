"""The JSON schema of params files, from which editors complete and check them (draft 2020-12)."""

import json
from typing import Any

from us3l.params.params import Params

Schema = dict[str, Any]

RUNS = ("PretrainRun", "ReuseRun", "PruneRun", "ImportRun", "UntrainedRun")
LIKE_RUN = {
    "type": "string",
    "description": "Run to take all other keys from, RUN or STUDY/RUN.",
}
LIKE_METHOD = {"type": "string", "description": "Named method to take all other keys from."}
WIDTHS_ALONE = {
    "anyOf": [{"type": "array", "items": {"type": "number", "minimum": 0.25, "maximum": 1}}, {"type": "null"}],
    "description": "Widths to train alone: run NAME-w100 for 1.0, and so on. A row of a table names them as NAME.",
}


def params_schema() -> Schema:
    """Return the schema of a params file and of the files that it includes, as users write them.

    Keys that a run or a method may take from another one are not required.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}
    definitions = schema["$defs"]
    del schema["required"]  # an included file needs none of the keys
    for name in RUNS:
        _may_be_like_another(definitions[name], {"like": LIKE_RUN, "widths_alone": WIDTHS_ALONE})
    _may_be_like_another(definitions["Method"], {"like": LIKE_METHOD})
    named = {"type": "string", "description": "A named method."}
    training = definitions["PretrainRun"]["properties"]
    training["method"]["anyOf"] = [named, {"$ref": training["method"].pop("$ref")}]
    training["sampling"]["anyOf"].append({"type": "null"})  # replaces the sampling of the run that this one is like
    [runs] = definitions["Study"]["properties"]["runs"]["patternProperties"].values()
    runs["anyOf"] = runs.pop("oneOf")
    return schema


def params_schema_text() -> str:
    """Return the content of params.schema.json."""
    return json.dumps(params_schema(), indent=2, ensure_ascii=False) + "\n"


def _may_be_like_another(definition: Schema, keys: Schema) -> None:
    definition["properties"] = keys | definition["properties"]
    definition.pop("required", None)
