"""Take keys out of texts that are kept: some providers want their key in the URL and echo it in errors."""

from __future__ import annotations

import re

LONGEST = 500
"""Characters kept of a message."""

# Each takes time in proportion to the text, whatever is in it: texts come from other people's servers.
_SECRETS = (
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]+"),
    # key=value and "key": "value", as in URLs, headers and JSON
    re.compile(
        r"(?i)((?:api[-_]?key|access[-_]?key|token|secret|signature|password|crumb)[\"']?\s*[=:]\s*[\"']?)"
        r"(?!\{\s*[\"'}])[^\s&\"',;]+"  # an object is no key
    ),
    re.compile(r"(?i)(\bapi key as\s+)\S+"),  # Alpha Vantage tells the key in words
    re.compile(r"(//[^\s:/@]*:)[^\s/]+(?=@)"),  # user:password@host
)


def redact(text: str) -> str:
    """`text` with every key, token and password replaced by stars, cut to `LONGEST` characters."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
