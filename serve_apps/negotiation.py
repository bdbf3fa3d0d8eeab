"""Which of several media types a client takes, by its header `Accept` (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException


def choose(accept: str | None, offered: Sequence[str]) -> str:
    """The offered media type that the client likes best, the first of equals; answers 406 for none."""
    ranges = [_range(part) for part in (accept or "*/*").split(",")[:32] if part.strip()]
    liking = {media: _quality(media, ranges) for media in offered}
    best = max(offered, key=lambda media: liking[media])
    if liking[best] <= 0:
        raise HTTPException(
            HTTPStatus.NOT_ACCEPTABLE,
            f"None of what `Accept` asks for is made here; made are {', '.join(offered)}.",
        )
    return best


def _range(part: str) -> tuple[str, float]:
    """A media range and its weight, from 0 (not at all) to 1."""
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weights = [each[2:] for each in parameters if each.startswith("q=")]
    try:
        return media, float(weights[0]) if weights else 1.0
    except ValueError:
        return media, 0.0


def _quality(media: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The weight of the most specific range that holds `media`; 0 when none does."""
    for wanted in (media, f"{media.partition('/')[0]}/*", "*/*"):
        weights = [weight for name, weight in ranges if name == wanted]
        if weights:
            return max(weights)
    return 0.0
