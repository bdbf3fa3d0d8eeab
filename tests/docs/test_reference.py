"""What the reference pages name is what the code has, no more and no less."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import psycopg2
import pytest
from fastapi.testclient import TestClient

from cluster.providers import registry
from cluster.settings import environment_names, load
from serve_apps.api import create_app
from tests.docs import generate, pages
from tests.docs.render import http
from tests.unit.training import samples
from training import bundle, registered, train
from training.features import MIN_BARS, NAMES, WARMUP

_COLUMNS = """
SELECT c.relname, c.relkind = 'v', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""


@pytest.mark.parametrize(("page", "name"), generate.BLOCKS, ids=lambda part: getattr(part, "name", part))
def test_a_generated_block_is_what_the_code_says(page: Path, name: str) -> None:
    made = generate.BLOCKS[page, name]()
    assert pages.block(page, name) == made, "out of date: run `python -m tests.docs.generate`"


def test_every_setting_is_documented_once_by_both_of_its_names() -> None:
    page = pages.REFERENCE / "settings.md"
    documented = [(row[0], row[1]) for row in pages.rows_of(pages.block(page, "settings"))]
    assert documented == [(env, key) for key, env in environment_names().items()]


def test_the_options_of_every_provider_are_documented() -> None:
    rows = pages.rows_of(pages.section(pages.REFERENCE / "settings.md", "All settings"))
    options = defaultdict(set)
    for row in rows[len(environment_names()) :]:
        options[row[0]].add(row[1])
    assert sorted(options) == registry.names()
    assert options["sample"] == {"none"}
    for option in options["synthetic"]:
        value: object = [] if option in {"holes", "revisions", "outages"} else 1
        registry.create("synthetic", {option: value})


def test_every_documented_path_is_served_and_the_other_way_round() -> None:
    documented = {
        (row[0], row[1]) for row in pages.rows_of(pages.block(pages.REFERENCE / "http.md", "paths"))
    }
    assert documented == {(method, path) for method, path, _ in http.operations()}
    assert ("POST", "/predict") in documented


def test_the_pages_that_the_openapi_document_leaves_out_are_served(tmp_path: Path) -> None:
    text = (pages.REFERENCE / "http.md").read_text()
    # Not entered as a context: these pages need no model and no database.
    client = TestClient(create_app(load(instance=False, environ={}, home=tmp_path)))
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert f"GET {path}" in text
        assert client.get(path).status_code == 200


@pytest.mark.postgres
def test_the_documented_tables_are_those_of_a_migrated_database(database_url: str) -> None:
    assert _documented_tables() == _tables(database_url)


def _documented_tables() -> dict[str, list[tuple[str, str]]]:
    page = pages.REFERENCE / "tables.md"
    headings = [line[3:] for line in page.read_text().splitlines() if line.startswith("## ")]
    return {
        table: [(row[0], row[1]) for row in pages.rows_of(pages.section(page, heading))]
        for heading in headings
        for table in heading.split(", ")
    }


def _tables(dsn: str) -> dict[str, list[tuple[str, str]]]:
    tables: dict[str, list[tuple[str, str]]] = defaultdict(list)
    connection = psycopg2.connect(dsn)
    try:
        cursor = connection.cursor()
        cursor.execute(_COLUMNS)
        for table, is_view, column, long_type, required in cursor.fetchall():
            kind = long_type.replace("timestamp with time zone", "timestamptz")
            if table == "feature_engineered_data" and column in NAMES:
                assert (kind, required) == ("real", False)  # what the page says of all fifty at once
            else:
                tables[table].append((column, kind if required or is_view else f"{kind}, null"))
    finally:
        connection.close()
    return dict(tables)


def test_the_documented_features_are_those_that_are_computed_with_their_first_bars() -> None:
    rows = pages.rows_of((pages.REFERENCE / "features.md").read_text())
    assert [(row[0], int(row[3])) for row in rows] == list(WARMUP.items())
    assert len(rows) == 50


def test_the_features_page_tells_the_warm_up() -> None:
    text = (pages.REFERENCE / "features.md").read_text()
    assert f"from bar {max(WARMUP.values())} on" in text
    assert f"asks for {MIN_BARS} bars" in text


def test_the_documented_model_files_are_those_of_a_bundle() -> None:
    rows = pages.rows_of(pages.section(pages.REFERENCE / "model-files.md", "The files"))
    assert [row[0] for row in rows] == [bundle.MANIFEST, *bundle.FILES]


def test_the_documented_manifest_has_the_keys_of_a_trained_one() -> None:
    rows = pages.rows_of(pages.section(pages.REFERENCE / "model-files.md", "The manifest"))
    trained = train.fit(samples.dataset(), samples.TINY)
    assert {row[0] for row in rows} == set(trained.manifest)


def test_the_tags_of_a_version_are_documented() -> None:
    text = pages.section(pages.REFERENCE / "model-files.md", "How a bundle is loaded")
    for tag in set(registered.TAGS) - {"feature_digest", "manifest_sha256"}:
        assert tag.replace("_", " ") in text
