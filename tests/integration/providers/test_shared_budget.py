"""One budget on a real Valkey: shared exactly, decided as the pure budget decides."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from cluster.clock import SystemClock
from cluster.errors import ConfigError, RateLimited
from cluster.market.intervals import Interval
from cluster.ports import free_port
from cluster.providers.budget import Budget, Window, WindowLeft
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.shared_budget import SharedBudget
from cluster.providers.synthetic import SyntheticProvider

pytestmark = pytest.mark.valkey
START = datetime(2024, 6, 3, tzinfo=UTC)
HOUR = Window(limit=50, seconds=3_600)


@asynccontextmanager
async def sharing(
    url: str, *windows: Window, among: int = 1, scope: str = ""
) -> AsyncIterator[list[SharedBudget]]:
    """Budgets of one scope, each with a Redis client of its own."""
    scope = scope or f"test-{uuid.uuid4().hex}"
    clients = [Redis.from_url(url) for _ in range(among)]
    try:
        yield [SharedBudget(client, scope, windows, SystemClock()) for client in clients]
    finally:
        await asyncio.gather(*(client.aclose() for client in clients))


async def test_two_gateways_with_two_clients_share_one_budget_exactly_under_parallel_load(
    valkey_url: str,
) -> None:
    policy = GatewayPolicy(budget=(HOUR,), concurrency=32)
    async with sharing(valkey_url, HOUR, among=2) as budgets:
        providers = [SyntheticProvider(symbols=1), SyntheticProvider(symbols=1)]
        gateways = [
            Gateway(provider, policy=policy, allowance=budget)
            for provider, budget in zip(providers, budgets, strict=True)
        ]

        async def fetch(gateway: Gateway) -> bool:
            try:
                await gateway.fetch("SYN0001", Interval.M1, START, START + timedelta(minutes=3))
            except RateLimited:
                return False
            return True

        granted = await asyncio.gather(*(fetch(gateways[i % 2]) for i in range(200)))
        assert sum(granted) == 50
        calls = [gateway.stats().outcomes.get("bars", 0) for gateway in gateways]
        assert sum(calls) == 50
        assert min(calls) > 0  # both took part
        for gateway in gateways:
            await gateway.refresh()
            assert gateway.stats().budget_left == [WindowLeft(limit=50, seconds=3_600, left=0)]


async def test_weights_and_several_windows_are_shared_under_parallel_load(valkey_url: str) -> None:
    async with sharing(valkey_url, HOUR, Window(limit=31, seconds=86_400), among=4) as budgets:
        waits = await asyncio.gather(*(budgets[i % 4].reserve(2) for i in range(100)))
    assert sum(2 for wait_s in waits if wait_s == 0) == 30
    assert all(86_300 < wait_s <= 86_400 for wait_s in waits if wait_s)


async def test_who_may_not_call_takes_nothing(valkey_url: str) -> None:
    async with sharing(valkey_url, HOUR, Window(limit=1, seconds=86_400)) as [budget]:
        assert await budget.reserve(1) == 0
        for _ in range(20):
            assert await budget.reserve(1) > 0
        assert [window.left for window in budget.left()] == [49, 0]


async def test_what_the_provider_tells_one_holds_for_all(valkey_url: str) -> None:
    async with sharing(valkey_url, Window(limit=100, seconds=60), among=2) as [one, other]:
        await one.reserve(3)
        await one.correct({"1m": 95})
        await other.refresh()
        assert other.left()[0].left == 5
        assert await other.reserve(6) > 59
        await one.close_for(1_000)
        assert 999 < await other.reserve(1) <= 1_000
        assert one.left()[0].left == other.left()[0].left == 0
        await one.close_for(10)  # an earlier moment does not open it
        assert await other.reserve(1) > 990


async def test_other_windows_that_come_while_a_call_is_decided_take_over(valkey_url: str) -> None:
    async with sharing(valkey_url, HOUR) as [budget]:
        under_way = asyncio.create_task(budget.reserve(1))
        await asyncio.sleep(0)
        budget.renew((HOUR, Window(limit=25, seconds=86_400)))
        assert await under_way == 0
        assert await budget.reserve(1) == 0
        assert [window.left for window in budget.left()] == [48, 24]


async def test_scopes_are_apart(valkey_url: str) -> None:
    async with sharing(valkey_url, HOUR) as [one], sharing(valkey_url, HOUR) as [other]:
        await one.reserve(50)
        assert await other.reserve(50) == 0


async def test_nothing_is_left_behind_after_the_longest_window(valkey_url: str) -> None:
    scope = f"test-{uuid.uuid4().hex}"
    async with (
        sharing(valkey_url, Window(5, 1.0), Window(50, 60.0), scope=scope) as [budget],
        Redis.from_url(valkey_url) as client,
    ):
        await budget.reserve(1)
        await budget.close_for(30)
        lives_ms = [await client.pttl(key) for key in await client.keys(f"*{scope}*")]
    assert len(lives_ms) == 4
    assert all(0 < life_ms <= 61_000 for life_ms in lives_ms)


async def test_what_was_used_before_a_flush_counts_again_as_soon_as_somebody_asks(valkey_url: str) -> None:
    scope = f"test-{uuid.uuid4().hex}"
    async with (
        sharing(valkey_url, HOUR, Window(500, 86_400), among=3, scope=scope) as [busy, idle, new],
        Redis.from_url(valkey_url) as client,
    ):
        await busy.reserve(45)
        await idle.refresh()
        await client.delete(*await client.keys(f"*{scope}*"))
        await client.script_flush()
        assert await new.reserve(2) == 0  # it never heard of anything, and nobody else has asked yet
        assert await idle.reserve(6) > 3_590
        assert [window.left for window in idle.left()] == [5, 455]
        assert await busy.reserve(5) == 0
        assert await new.reserve(1) > 3_590


async def test_a_flush_of_what_has_expired_anyway_takes_nothing(valkey_url: str) -> None:
    scope = f"test-{uuid.uuid4().hex}"
    async with (
        sharing(valkey_url, Window(5, 0.05), scope=scope) as [budget],
        Redis.from_url(valkey_url) as client,
    ):
        await budget.reserve(5)
        await client.delete(*await client.keys(f"*{scope}*"))
        await asyncio.sleep(0.06)
        assert await budget.reserve(5) == 0


async def test_a_redis_out_of_reach_grants_nothing_and_hurts_no_health() -> None:
    url = f"redis://:s3cr3t@127.0.0.1:{free_port()}/0"
    async with sharing(url, HOUR, scope="finnhub") as [budget]:
        gateway = Gateway(SyntheticProvider(), allowance=budget)
        with pytest.raises(RateLimited, match=r"the budget that finnhub shares .* is out of reach") as caught:
            await gateway.fetch("SYN0001", Interval.M1, START, START + timedelta(minutes=3))
        assert timedelta(0) < caught.value.retry_at - datetime.now(UTC) <= timedelta(seconds=5)
        assert "s3cr3t" not in str(caught.value)
        stats = gateway.stats()
        assert (stats.state, stats.health_score, stats.outcomes) == ("CLOSED", 1.0, {})
        assert stats.budget_left == [WindowLeft(limit=50, seconds=3_600, left=0)]
        assert "out of reach" in str(stats.last_error)
        await budget.correct({"1h": 3})  # what cannot be told now is told by later answers
        await budget.close_for(100)
        assert 99 < await budget.reserve(1) <= 100  # what the provider said holds without Redis


async def test_a_redis_that_hangs_is_out_of_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system accepts, and nobody answers
        client = Redis.from_url(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        budget = SharedBudget(client, "x", (HOUR,), SystemClock(), timeout_s=0.2)
        with pytest.raises(RateLimited, match="TimeoutError"):
            await budget.reserve(1)
        await client.aclose()


async def test_a_weight_that_can_never_fit_is_a_configuration_error(valkey_url: str) -> None:
    async with sharing(valkey_url, HOUR) as [budget]:
        with pytest.raises(ConfigError, match="a call of weight 51 never fits"):
            await budget.reserve(51)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 4_000),  # pause in microseconds
        st.integers(0, 5),  # weight
        st.sampled_from([0, 0, 0, 0, 3_000]),  # closed for microseconds
        st.sampled_from([0, 0, 0, 1, 4, 30]),  # what the provider says is used in a second
    ),
    max_size=25,
)
WINDOWS = st.lists(
    st.builds(Window, limit=st.integers(5, 12), seconds=st.sampled_from([0.002, 0.005, 0.01, 0.03])),
    min_size=1, max_size=3, unique_by=lambda window: window.seconds,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(windows=WINDOWS, steps=STEPS)
def test_it_decides_exactly_as_the_pure_budget_does_at_the_same_times(
    valkey_url: str, windows: list[Window], steps: list[tuple[int, int, int, int]]
) -> None:
    asyncio.run(_compare(valkey_url, (*windows, Window(40, 1.0)), steps))


async def _compare(url: str, windows: tuple[Window, ...], steps: list[tuple[int, int, int, int]]) -> None:
    pure = Budget(tuple(Window(window.limit, round(window.seconds * 1e6)) for window in windows))
    async with sharing(url, *windows) as [budget]:
        for pause_us, weight, close_us, used in steps:
            await asyncio.sleep(pause_us / 1e6)
            reply = await budget.ask(weight=weight, close_us=close_us, usage={"1s": used})
            if close_us:
                pure.close_until(reply.now_us + close_us)
            pure.correct({"1000000s": used}, reply.now_us)
            expected = pure.reserve(weight, reply.now_us) if weight else None
            assert reply.taken == (weight > 0 and expected is None)
            if expected is not None:
                assert reply.now_us + reply.wait_us == expected
            assert list(reply.left) == [window.left for window in pure.left(reply.now_us)]
