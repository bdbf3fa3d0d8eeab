"""The tests of bars in and out of the database, on hypertables whose chunks get compressed in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from cluster.storage.database import Database
from tests.conformance.candle_servers import fresh, require_timescale
from tests.integration.storage.conftest import EMPTY
from tests.integration.storage.test_bars_read import *  # noqa: F403 - all of them
from tests.integration.storage.test_bars_write import *  # noqa: F403
from tests.integration.storage.test_contract_statements import *  # noqa: F403

del test_a_bar_lies_in_the_partition_of_its_month  # noqa: F821 - of native partitions

pytestmark = pytest.mark.postgres

DSN = require_timescale()


@pytest.fixture(scope="module")
def storage_dsn() -> Iterator[str]:
    with fresh(DSN, "auto") as made:
        yield made


@pytest.fixture
async def database(storage_dsn: str) -> AsyncIterator[Database]:
    opened = await Database.open(storage_dsn, max_size=6)
    await opened.pool.execute(EMPTY)
    yield opened
    await opened.close()
