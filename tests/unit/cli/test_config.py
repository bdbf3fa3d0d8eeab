from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import finsight


def test_every_setting_is_shown_with_its_source(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    running = {
        "database_url": "postgresql://me:secret@127.0.0.1:1234/finsight",
        "api_port": 8123,
        "admin_api_key": "k",
    }
    (tmp_path / "run" / "endpoints.json").write_text(json.dumps(running))
    file = tmp_path / "extra.yaml"
    file.write_text("log_level: debug\n")

    said = finsight(
        "config", "--json", FINSIGHT_HOME=str(tmp_path), FINSIGHT_CONFIG=str(file), MAX_DATA_POINTS="7"
    )

    shown = said.json
    assert {name: shown[name] for name in ("database_url", "api_port", "log_level", "max_data_points")} == {
        "database_url": {
            "value": "postgresql://me:***@127.0.0.1:1234/finsight",
            "source": "running instance",
        },
        "api_port": {"value": 8123, "source": "running instance"},
        "log_level": {"value": "debug", "source": "configuration file"},
        "max_data_points": {"value": 7, "source": "environment"},
    }
    assert shown["admin_api_key"] == {"value": "**********", "source": "running instance"}
    assert shown["mlflow_port"] == {"value": 5000, "source": "default"}


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_keys_and_passwords_are_hidden(form: tuple[str, ...], tmp_path: Path) -> None:
    said = finsight(
        "config",
        "show",
        *form,
        FINSIGHT_HOME=str(tmp_path),
        ADMIN_API_KEY="hush-one",
        FINNHUB_API_KEY="hush-five",
        FINSIGHT_PROVIDERS='{"finnhub": {"api_key": "hush-six"}}',
        API_KEY="hush-two",
        DATABASE_URL="postgresql://me:hush-three@db/x",
        REDIS_URL="redis://:hush-four@cache:6379/0",
    )
    assert said.status == 0
    assert "hush" not in said.out


def test_a_good_configuration_is_valid(tmp_path: Path) -> None:
    said = finsight("config", "validate", "--json", FINSIGHT_HOME=str(tmp_path))
    assert (said.status, said.json) == (0, {"valid": True, "problems": [], "warnings": []})


def test_production_is_valid_without_keys_and_says_which_providers_it_leaves_out(tmp_path: Path) -> None:
    production = {"FINSIGHT_HOME": str(tmp_path), "FINSIGHT_PROFILE": "production"}
    said = finsight("config", "validate", "--json", **production)
    assert (said.status, said.json["problems"]) == (0, [])
    assert said.json["warnings"] == [
        "Provider alpha_vantage is not run, because it has no key: set ALPHA_VANTAGE_API_KEY.",
        "Provider finnhub is not run, because it has no key: set FINNHUB_API_KEY.",
    ]
    keyed = {"FINNHUB_API_KEY": "k3y", "ALPHA_VANTAGE_API_KEY": "k3y"}
    said = finsight("config", "validate", "--json", **production, **keyed)
    assert said.json == {"valid": True, "problems": [], "warnings": []}


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"LOG_LEVEL": "loud"}, "log_level (environment LOG_LEVEL) = 'loud'"),
        (
            {"FINSIGHT_PROVIDERS": '{"nope": {}}'},
            "provider 'nope' is not known; known are alpha_vantage, binance",
        ),
        ({"FINSIGHT_PROVIDERS": '{"synthetic": {"sed": 1}}'}, "options of provider 'synthetic': sed"),
        ({"FINSIGHT_MODEL_SIZE": "huge"}, "there are small, standard"),
        (
            {"FINSIGHT_PROVIDERS": '{"binance": {"budget": [{"limit": 10, "seconds": 1}]}}'},
            "the budget of binance has Window(limit=10, seconds=1.0), but its heaviest call has weight 20",
        ),
        ({"MODEL_DIR": "/not/there"}, "is no folder"),
        ({"FINSIGHT_CONFIG": "/not/there.yaml"}, "FINSIGHT_CONFIG names /not/there.yaml"),
    ],
)
def test_what_is_wrong_is_named_and_the_status_is_1(
    environment: dict[str, str], text: str, tmp_path: Path
) -> None:
    said = finsight("config", "validate", "--json", FINSIGHT_HOME=str(tmp_path), **environment)
    assert (said.status, said.json["valid"]) == (1, False)
    (problem,) = said.json["problems"]
    assert text in problem


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    wrong = {"LOG_LEVEL": "loud", "FINSIGHT_API_PORT": "-1"}
    said = finsight("config", "validate", FINSIGHT_HOME=str(tmp_path), **wrong)
    assert (said.status, len(said.out.splitlines())) == (1, 2)
