"""An answer's document handed to a parser, and its complaints kept free of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cluster.errors import FinSightError, Malformed
from cluster.providers.http import Answer, hide

_Parsed = TypeVar("_Parsed")


def read(answer: Answer, parse: Callable[[Any], _Parsed]) -> _Parsed:
    """What `parse` makes of the JSON document; what it cannot read is shown, without the secrets.

    They are taken out of the other errors that `parse` raises, too.
    """
    document = answer.json()
    try:
        return parse(document)
    except Malformed as error:
        complaint = hide(str(error), answer.secrets)
    except FinSightError as error:
        error.args = (hide(str(error), answer.secrets), *error.args[1:])
        raise
    raise Malformed(f"{complaint}; it answered {answer.excerpt()}")  # here, without the error as its context
