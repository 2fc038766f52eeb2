"""docker-compose.yml against what the compose specification asks and what this code really offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli import app
from service.settings import Settings

ROOT = Path(__file__).parents[2]
BANTAM = ("api", "worker", "scheduler")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def test_it_has_the_four_services_and_nothing_undefined(compose: dict[str, Any]) -> None:
    assert set(compose) <= {"x-bantam", "services", "volumes"}
    services = compose["services"]
    assert set(services) == {"postgres", *BANTAM}
    for service in services.values():
        assert service.get("image") or service.get("build")
        for name, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in services[name], f"{name}: nobody can wait for it"
        for mount in service["volumes"]:
            assert mount.partition(":")[0] in compose["volumes"]


def test_every_service_starts_a_command_that_exists(compose: dict[str, Any]) -> None:
    known = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback is not None}
    for name in BANTAM:
        program, command = compose["services"][name]["command"]
        assert program == "bantam"
        assert command in known


def test_its_settings_are_settings(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BANTAM:
        environment = compose["services"][name]["environment"]
        known = {f"BANTAM_{field.upper()}" for field in Settings.model_fields}
        assert set(environment) <= known
        for key, value in environment.items():
            monkeypatch.setenv(key, value.replace("${BANTAM_DB_PASSWORD:?set it in .env}", "secret"))
        settings = Settings()
        assert settings.database == "postgresql+psycopg://bantam:secret@postgres/bantam"
        assert settings.host == "0.0.0.0"


def test_all_processes_share_the_data_folder_and_the_port_stays_on_this_machine(compose: dict[str, Any]) -> None:
    assert {tuple(compose["services"][name]["volumes"]) for name in BANTAM} == {("data:/data",)}
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["api"]["ports"])
    assert "ports" not in compose["services"]["postgres"]


def test_the_image_copies_what_the_package_is_made_of(compose: dict[str, Any]) -> None:
    build = compose["services"]["api"]["build"]["dockerfile_inline"]
    copied = [word for line in build.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]]
    assert {"compressors", "search", "service", "migrations", "pyproject.toml"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied if name != "README.md")
