"""Fills a document with every field of its schema, so that a test can try each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXAMPLES = {
    "date-time": "2026-01-02T03:04:05Z",
    "^[0-9a-f]{64}$": "5a" * 32,
    "string": "text",
    "integer": 1,
    "number": 0.5,
    "boolean": False,
}
"""A value by the format, pattern or type of a JSON Schema."""


def with_every_field(document: Any, schema: Mapping[str, Any]) -> Any:
    """``document`` with an example in place of each null, empty list, empty object and missing field of ``schema``."""
    return _filled(document, schema, schema.get("$defs", {}))


def _filled(value: Any, schema: Mapping[str, Any], models: Mapping[str, Any]) -> Any:
    schema = _resolved(schema, models)
    match schema.get("type"):
        case "object" if "properties" in schema:
            return {name: _filled((value or {}).get(name), part, models) for name, part in schema["properties"].items()}
        case "object":
            names = value or [*schema.get("propertyNames", {}).get("enum", ["key"])][:1]
            return {name: _filled((value or {}).get(name), schema["additionalProperties"], models) for name in names}
        case "array":
            return [_filled(item, schema["items"], models) for item in value or [None]]
        case _ if value is not None:
            return value
    known = (schema.get(key) for key in ("format", "pattern", "type"))
    example = next((_EXAMPLES[key] for key in known if key in _EXAMPLES), None)
    return schema.get("const", schema.get("enum", [example])[0])


def _resolved(schema: Mapping[str, Any], models: Mapping[str, Any]) -> Mapping[str, Any]:
    """``schema`` without references and without null."""
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            schema = models[schema["$ref"].rpartition("/")[2]]
        else:
            schema = next(choice for choice in schema["anyOf"] if choice.get("type") != "null")
    return schema
