from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_the_default_store_is_sqlite_in_the_data_folder(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).database == f"sqlite:///{tmp_path}/bantam.sqlite3"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_way_to_write_postgresql_means_psycopg(scheme: str) -> None:
    settings = Settings(database_url=f"{scheme}://u:p@h/d")
    assert settings.database == "postgresql+psycopg://u:p@h/d"


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "nonsense", "postgresql+asyncpg://h/d"]
)
def test_other_stores_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="database_url"):
        Settings(database_url=url)


def test_settings_travel_to_children_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=tmp_path, port=0, lease_s=3.5, database_url="postgresql://u:p%40x@h/d")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_a_relative_data_folder_is_fixed_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(data_dir=Path("here")).data_dir == tmp_path / "here"


def test_the_operations_page_names_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [name for name in Settings.model_fields if f"`BANTAM_{name.upper()}`" not in page] == []
