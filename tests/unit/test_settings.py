"""Keys of providers: from the environment into their options, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from cluster import settings
from cluster.errors import ConfigError
from cluster.market.intervals import Interval
from cluster.providers import check, plans, registry


def load(home: Path, **environ: str) -> settings.Settings:
    return settings.load(environ={"FINSIGHT_HOME": str(home), **environ})


@pytest.mark.parametrize(
    ("provider", "env"),
    [
        ("binance", "BINANCE_API_KEY"),
        ("finnhub", "FINNHUB_API_KEY"),
        ("alpha_vantage", "ALPHA_VANTAGE_API_KEY"),
        ("yahoo", "YAHOO_FINANCE_API_KEY"),
    ],
)
def test_a_key_of_the_environment_becomes_an_option_of_its_provider(
    provider: str, env: str, tmp_path: Path
) -> None:
    options = {provider: {"base_url": "http://127.0.0.1:1"}}
    loaded = load(tmp_path, FINSIGHT_PROVIDERS=json.dumps(options), **{env: "k3y"})
    assert loaded.provider_options(provider) == {"base_url": "http://127.0.0.1:1", "api_key": "k3y"}
    assert loaded.provider_options("sample") == {}


def test_a_key_among_the_options_comes_before_that_of_the_environment(tmp_path: Path) -> None:
    loaded = load(tmp_path, FINSIGHT_PROVIDERS='{"finnhub": {"api_key": "mine"}}', FINNHUB_API_KEY="k3y")
    assert loaded.provider_options("finnhub") == {"api_key": "mine"}


def test_the_newline_at_the_end_of_a_mounted_secret_is_no_part_of_the_key(tmp_path: Path) -> None:
    assert load(tmp_path, FINNHUB_API_KEY="k3y\n").provider_options("finnhub") == {"api_key": "k3y"}
    assert load(tmp_path, FINNHUB_API_KEY=" \n").provider_options("finnhub") == {}


def test_production_runs_the_real_providers_that_have_what_they_need(tmp_path: Path) -> None:
    production = {"FINSIGHT_PROFILE": "production"}
    loaded = load(tmp_path, **production)
    assert list(loaded.active_providers) == ["binance", "yahoo"]
    assert loaded.keyless_providers == ["alpha_vantage", "finnhub"]
    loaded = load(tmp_path, **production, FINNHUB_API_KEY="k3y")
    assert list(loaded.active_providers) == ["binance", "yahoo", "finnhub"]
    for name in loaded.active_providers:
        assert registry.create(name, loaded.provider_options(name)).name == name
        assert plans.policy(name, loaded.provider_options(name)).budget


def test_a_key_among_the_options_is_a_key(tmp_path: Path) -> None:
    loaded = load(tmp_path, FINSIGHT_PROVIDERS='{"finnhub": {"api_key": "mine"}, "alpha_vantage": {}}')
    assert list(loaded.active_providers) == ["finnhub"]


def test_no_key_is_shown(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        BINANCE_API_KEY="s3cr3t-1",
        BINANCE_SECRET_KEY="s3cr3t-2",
        FINNHUB_API_KEY="s3cr3t-3",
        ALPHA_VANTAGE_API_KEY="s3cr3t-4",
        YAHOO_FINANCE_API_KEY="s3cr3t-5",
        RLC_REDIS_URL="redis://:s3cr3t-6@cache:6379/0",
        FINSIGHT_PROVIDERS='{"finnhub": {"api_key": "s3cr3t-7", "base_url": "https://finnhub.io"}}',
    )
    shown = settings.shown(loaded)
    assert "s3cr3t" not in json.dumps(shown) + repr(loaded.binance_api_key)
    assert shown["providers"] == {"finnhub": {"api_key": "***", "base_url": "https://finnhub.io"}}
    assert shown["rlc_redis_url"] == "redis://:***@cache:6379/0"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://me:s3cr3t@db:5432/x?sslmode=require", "postgresql://me:***@db:5432/x?sslmode=require"),
        ("postgresql://h/db?user=u&password=s3cr3t", "postgresql://h/db?user=u&password=***"),
        ("postgresql:///db?s3cr3t", "postgresql:///db?***"),
        ("postgresql://me@h/db", "postgresql://me@h/db"),
        ("postgresql://me:a@s3cr3t@h/db", "postgresql://me:***@h/db"),
        ("postgresql://me:a/s3cr3t@h/db", "(hidden)"),  # not percent-encoded
        ("postgresql://me:a?s3cr3t@h/db", "(hidden)"),
        ("postgresql://me:a#s3cr3t@h/db", "(hidden)"),
        ("postgresql://me:s3cr3t", "(hidden)"),
        ("host=h user=me password=s3cr3t", "(hidden)"),
        ("me:s3cr3t@h", "(hidden)"),
        ("redis://h/0?password=s3cr3t", "redis://h/0?password=***"),
        ("https://s3cr3t@h/x", "https://***@h/x"),
        ("sqlite:////folder/mlflow.db", "sqlite:////folder/mlflow.db"),
        ("/folder/mlruns", "/folder/mlruns"),
    ],
)
def test_an_address_is_shown_without_its_password_wherever_that_stands(given: str, shown: str) -> None:
    assert settings.hide_password(given) == shown


def test_options_are_shown_without_their_keys_at_any_depth(tmp_path: Path) -> None:
    options = {
        "base_url": "https://me:s3cr3t@h/?token=s3cr3t",
        "headers": {"Authorization": "s3cr3t", "more": [{"X-API-Key": "s3cr3t", "accept": "text/csv"}]},
        "budget": [{"limit": 10, "seconds": 60}],
    }
    loaded = load(tmp_path, FINSIGHT_PROVIDERS=json.dumps({"yahoo": options}))
    assert settings.shown(loaded)["providers"]["yahoo"] == {
        "base_url": "https://me:***@h/?token=***",
        "headers": {"Authorization": "***", "more": [{"X-API-Key": "***", "accept": "text/csv"}]},
        "budget": [{"limit": 10, "seconds": 60}],
    }


@pytest.mark.parametrize(
    "environ",
    [
        {"FINSIGHT_PROVIDERS": '{"finnhub": ["api_key=s3cr3t"]}'},
        {"FINSIGHT_PROVIDERS": '{"finnhub": "s3cr3t"}'},
        {"FINSIGHT_PROVIDERS": '["s3cr3t"]'},
        {"FINSIGHT_PROVIDERS": '{"finnhub": s3cr3t'},
        {"LOG_LEVEL": "host=h password=s3cr3t"},
    ],
)
def test_what_is_wrong_is_told_without_a_key(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(environ))) as caught:
        load(tmp_path, **environ)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__suppress_context__  # a trace would quote it


def test_budgets_are_shared_only_when_that_is_asked_for(tmp_path: Path) -> None:
    assert load(tmp_path, RLC_REDIS_URL="redis://rlc:1/0").shared_budget_url is None
    own = {"USE_RLC": "true", "REDIS_URL": "redis://own:1/0"}
    assert load(tmp_path, **own).shared_budget_url == "redis://own:1/0"
    assert load(tmp_path, **own, RLC_REDIS_URL="redis://rlc:1/0").shared_budget_url == "redis://rlc:1/0"
    with pytest.raises(ConfigError, match="REDIS_URL is not set"):
        assert load(tmp_path, USE_RLC="true").shared_budget_url


def test_a_setting_that_was_taken_out_of_a_file_is_back_at_its_default_when_read_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.yaml"
    environ = {"FINSIGHT_HOME": str(tmp_path), "FINSIGHT_CONFIG": str(file)}
    file.write_text("finnhub_api_key: first\nmax_data_points: 7\napi_port: 9000\n")
    started = settings.load(environ=environ)
    told = settings.revealed(started) | {"database_url": "postgresql://here/x", "admin_api_key": "made"}
    started.endpoints_file.parent.mkdir()
    started.endpoints_file.write_text(json.dumps(told))

    file.write_text("finnhub_api_key: second\n")
    read = settings.reread(environ)

    assert (read.finnhub_api_key, read.max_data_points) == (SecretStr("second"), 100_000)
    # what the embedded instance made, and what only a start can change
    assert (read.database_url, read.admin_api_key, read.api_port) == (
        "postgresql://here/x",
        SecretStr("made"),
        9000,
    )


def test_the_digest_tells_keys_apart_and_nothing_that_needs_a_restart() -> None:
    base = settings.load(instance=False, environ={})
    other_key = base.model_copy(update={"admin_api_key": SecretStr("a")})
    other_port = base.model_copy(update={"api_port": 1})
    assert settings.digest(base) == settings.digest(other_port) != settings.digest(other_key)
    assert settings.changed(base, other_key) == ["admin_api_key"]


def test_what_needs_a_restart_is_a_setting() -> None:
    assert set(settings.Settings.model_fields) >= settings.NEEDS_RESTART


def test_tiers_that_make_no_sense_are_refused() -> None:
    limits = '{"T0": {"adv_21d": 1, "mkt_cap": 1}}'
    with pytest.raises(ConfigError, match="expected limits of T0, T1, T2"):
        settings.load(instance=False, environ={"FINSIGHT_TIERS": limits})


def test_every_tier_has_its_bars_at_its_own_pace(tmp_path: Path) -> None:
    found = load(tmp_path, UPDATE_INTERVAL="15")
    assert found.cadence_s("T0", Interval.M1) == 15.0  # no pace of its own
    assert found.cadence_s("T1", Interval.M1) == 60.0
    mine = load(tmp_path, FINSIGHT_COLLECTION='{"T1": {"1h": 900}}')
    assert mine.collection == {"T1": {Interval.H1: 900.0}}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ('{"T4": {"1m": 60}}', r"collection .*'T4': Input should be 'T0'"),
        ('{"T0": {"2m": 60}}', r"collection .*'2m': Input should be '1m'"),
        ('{"T0": {"1m": 0}}', r"collection .* = 0: Input should be greater than or equal to 1"),
        ('{"T0": {"1m": "often"}}', r"collection .*'often': Input should be a valid number"),
    ],
)
def test_a_collection_that_makes_no_sense_is_refused_and_says_what_is_wrong(
    given: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(tmp_path, FINSIGHT_COLLECTION=given)


def test_a_cluster_collects_by_itself_or_with_others_or_not_at_all(tmp_path: Path) -> None:
    assert load(tmp_path).collects
    assert not load(tmp_path, LOCAL_SWEEP_ENABLED="false").collects
    assert load(tmp_path, LOCAL_SWEEP_ENABLED="false", USE_RLC="true").collects


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b'log_level: info\nfinnhub_api_key: "very-secret\n',
            "line 3, column 1: found unexpected end of stream",
        ),
        (b"finnhub_api_key: very-secret: one\n", "line 1, column 29: mapping values are not allowed here"),
        (b"finnhub_api_key: *very-secret\n", "line 1, column 18: a value that begins with *, & or !"),
        (b"finnhub_api_key: !very-secret x\n", "line 1, column 18: a value that begins with *, & or !"),
        (b"finnhub_api_key: very-secret\x00\n", "it cannot be read as text"),
        (b"log_level: 2020-99-99\n", "it cannot be read as text"),
        (b"[" * 20_000, "it cannot be read as text"),
        (b"\xff\xfevery-secret", "not UTF-8 (byte 0)"),
        (b"1: very-secret\nlog_levle: info\n", "unknown setting 1, log_levle"),
        (b"- very-secret\n", "it holds a list"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_without_what_it_holds(
    content: bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, FINSIGHT_CONFIG=str(file))
    assert said in str(refused.value)
    assert "very-secret" not in str(refused.value)


def test_a_limit_of_a_tier_that_is_missing_is_named() -> None:
    given = json.dumps({tier: {"adv_21d": 1} for tier in ("T0", "T1", "T2")})
    with pytest.raises(ConfigError, match=r"T0 has \['adv_21d'\]; expected adv_21d and mkt_cap"):
        settings.load(instance=False, environ={"FINSIGHT_TIERS": given})


@pytest.mark.parametrize("most", [-1, 0, 1.5, "many", True])
def test_a_limit_of_jobs_that_makes_no_sense_is_found_before_anything_starts(
    most: object, tmp_path: Path
) -> None:
    loaded = load(tmp_path, FINSIGHT_PROVIDERS=json.dumps({"sample": {"max_jobs": most}}))
    (problem,) = check.wrong(loaded)
    assert f"max_jobs = {most!r}" in problem


@pytest.mark.parametrize("name", ["MINUTE_RETENTION_DAYS", "COMPRESS_AFTER_DAYS"])
def test_an_age_beyond_all_times_is_refused_and_not_taken_over(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="less than or equal to 36500"):
        load(tmp_path, **{name: "1000000000000"})
