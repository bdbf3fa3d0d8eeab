"""The HTTP API as Markdown, out of the OpenAPI document that the service answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Any

from cluster.settings import load
from serve_apps.api import create_app
from tests.docs.pages import table

_PROBLEM = "application/problem+json"
_OF_THE_FRAMEWORK = ("HTTPValidationError", "ValidationError")


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document; no server is needed for it."""
    return create_app(load(instance=False, environ={})).openapi()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of everything that is served."""
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def paths() -> str:
    """Overview of all paths."""
    rows = [
        [f"`{method}`", f"`{path}`", _first_line(operation), "admin" if operation.get("security") else "none"]
        for method, path, operation in operations()
    ]
    return table(["Method", "Path", "What it does", "Key"], rows)


def details() -> str:
    """One section a path: parameters, body, answers."""
    return "\n\n".join(_detail(*operation) for operation in operations())


def bodies() -> str:
    """One section a schema: its fields."""
    schemas = document()["components"]["schemas"]
    shown = {name: schema for name, schema in schemas.items() if "properties" in schema}
    return "\n\n".join(
        _body(name, schema) for name, schema in sorted(shown.items()) if name not in _OF_THE_FRAMEWORK
    )


def _first_line(operation: dict[str, Any]) -> str:
    line: str = operation["description"].splitlines()[0]
    return line


def _detail(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"### {method} {path}", operation["description"]]
    if operation.get("parameters"):
        parts.append(
            table(["Parameter", "In", "Values", "Meaning"], map(_parameter, operation["parameters"]))
        )
    if body := operation.get("requestBody"):
        parts.append(f"Body: {_content(body)}.")
    parts.append(_answers(operation["responses"]))
    return "\n\n".join(parts)


def _parameter(given: dict[str, Any]) -> list[str]:
    schema = given["schema"]
    default = f" Default `{schema['default']}`." if schema.get("default") is not None else ""
    return [f"`{given['name']}`", given["in"], _kind(schema), given.get("description", "") + default]


def _answers(responses: dict[str, dict[str, Any]]) -> str:
    problems = sorted(status for status, answer in responses.items() if _PROBLEM in answer.get("content", {}))
    lines = [
        f"- {status} {HTTPStatus(int(status)).phrase}: {_content(answer)}"
        for status, answer in responses.items()
        if status not in problems
    ]
    if problems:
        lines.append(f"- {', '.join(problems)}: [Problem](#problem)")
    return "\n".join(lines)


def _content(part: dict[str, Any]) -> str:
    given = part.get("content", {}).items()
    content = {media: each["schema"] for media, each in given if "schema" in each}
    return " or ".join(f"`{media}`, {_kind(schema)}" for media, schema in content.items()) or "nothing"


def _body(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        [
            f"`{key}`",
            _kind(field),
            "yes" if key in required else _default(field),
            field.get("description", ""),
        ]
        for key, field in schema["properties"].items()
    ]
    return f"### {name}\n\n{schema['description']}\n\n" + table(
        ["Field", "Kind", "Required", "Meaning"], rows
    )


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    if default is None:
        return "no"
    return f"no; `{default if isinstance(default, str) else json.dumps(default)}`"


def _kind(schema: dict[str, Any]) -> str:
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        kind = document()["components"]["schemas"][name]
        return _kind(kind) if "enum" in kind else f"[{name}](#{name.lower()})"
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_kind(branch) for branch in branches))
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{value}`" for value in values)
    match schema.get("type"):
        case "array":
            return f"list of {_group(_kind(schema['items']))}"
        case "object":
            values = schema.get("additionalProperties")
            return f"object of {_group(_kind(values))}" if isinstance(values, dict) else "object"
        case "string":
            return {"date-time": "time", "binary": "file"}.get(schema.get("format", ""), "text")
        case kind:
            return str(kind or "anything") + _limits(schema)


def _group(kind: str) -> str:
    return f"({kind})" if " or " in kind else kind


def _limits(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    return f" {low} to {high}" if isinstance(low, int) and isinstance(high, int) and high < 2**32 else ""
