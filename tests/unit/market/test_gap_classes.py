from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cluster.market.gap_classes import Answer, AnswerCause, Verdict, classify

NOW = datetime(2025, 10, 8, 14, tzinfo=UTC)


def answer(provider: str, cause: AnswerCause, tries: int = 1, hours: int = 0) -> Answer:
    return Answer(provider, cause, tries, NOW + timedelta(hours=hours))


def verdict(*answers: Answer, able: set[str] | None = None, tries: int = 0, venue: bool = False) -> Verdict:
    return classify(answers, able, tries=tries, venue_lacks=venue)


def test_what_nobody_was_asked_for_is_asked_for_from_whoever_has_it() -> None:
    assert verdict(able={"a", "b"}) == Verdict("not_fetched", "")
    assert verdict(able={"a"}).is_asked_for
    assert verdict(able=None).cause == "not_fetched"  # nobody could tell what they offer


def test_what_no_provider_offers_cannot_be_filled_and_is_not_asked_for() -> None:
    assert verdict(able=set()).cause == "unfillable"
    assert not verdict(able=set()).is_asked_for


def test_what_one_lacks_is_asked_for_from_another() -> None:
    found = verdict(answer("a", "provider_hole"), able={"a", "b"})
    assert (found.cause, found.provider, found.not_before) == ("provider_hole", "b", None)


def test_what_all_lack_is_asked_for_again_when_its_pause_is_over_from_the_first_whose_is() -> None:
    found = verdict(answer("a", "no_data", hours=5), answer("b", "provider_hole", hours=1), able={"a", "b"})
    assert (found.cause, found.provider, found.not_before) == ("provider_hole", "b", NOW + timedelta(hours=1))


def test_what_two_lack_between_its_neighbours_was_not_traded() -> None:
    found = verdict(answer("a", "provider_hole"), answer("b", "provider_hole"), able={"a", "b", "c"})
    assert (found.cause, found.is_asked_for) == ("no_trades", False)


def test_one_that_has_nothing_at_all_is_no_witness_that_nothing_was_traded() -> None:
    assert verdict(answer("a", "provider_hole"), answer("b", "no_data"), able={"a", "b"}).cause == (
        "provider_hole"
    )


def test_bars_that_break_the_rules_are_their_own_cause() -> None:
    assert verdict(answer("a", "rejected"), able={"a"}).cause == "rejected"


def test_what_the_whole_venue_lacks_is_its_outage_only_after_somebody_was_asked() -> None:
    assert verdict(answer("a", "no_data"), able={"a"}, venue=True).cause == "venue_down"
    assert verdict(able={"a"}, venue=True).cause == "not_fetched"


def test_five_spaced_tries_at_each_are_enough() -> None:
    assert verdict(answer("a", "no_data", 5), able={"a"}).cause == "unfillable"
    assert verdict(answer("a", "no_data", 5), answer("b", "no_data", 4), able={"a", "b"}).provider == "b"
    assert verdict(able={"a"}, tries=5).cause == "unfillable"
    assert verdict(able={"a"}, tries=4).cause == "not_fetched"


def test_one_that_never_answers_is_not_in_the_way_of_another() -> None:
    asked = [
        verdict(answer("a", "no_data"), able={"a", "b", "c"}, tries=tries).provider for tries in (1, 2, 3)
    ]
    assert asked == ["c", "b", "c"]


def test_those_who_never_answer_are_not_asked_for_ever() -> None:
    lacks = answer("a", "provider_hole")
    assert verdict(lacks, able={"a", "b"}, tries=9).provider == "b"
    given_up = verdict(lacks, able={"a", "b"}, tries=10)
    assert (given_up.cause, given_up.is_asked_for) == ("unfillable", False)
    assert given_up.evidence == "a: provider_hole (1x); 10 jobs ended without an answer of b"


def test_what_one_lacks_of_a_whole_venue_is_asked_for_from_the_others_first() -> None:
    lacks = answer("a", "no_data")
    assert verdict(lacks, able={"a", "b"}, venue=True).provider == "b"
    assert verdict(lacks, answer("b", "no_data"), able={"a", "b"}, venue=True).cause == "venue_down"
