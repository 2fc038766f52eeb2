"""Settings of every process of the service: `BANTAM_*` variables, read when a process starts, never at import."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

MIB = 1024**2
GIB = 1024**3


class Settings(BaseSettings):
    """Durations in seconds (`_s`), sizes in bytes (`_bytes`)."""

    model_config = SettingsConfigDict(env_prefix="BANTAM_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("bantam-data"), description="token, database, blobs, cache and workspaces")
    database_url: str | None = Field(None, description="left out: SQLite in the data folder")
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    log_level: str = "info"

    max_model_bytes: int = Field(2 * GIB, gt=0)
    max_dataset_bytes: int = Field(16 * GIB, gt=0)
    intake_parallel: int = Field(2, ge=1, description="uploads that are read at once")
    dataset_read_s: float = Field(900, gt=0, description="limit for reading an uploaded dataset once")
    dataset_memory_bytes: int = Field(16 * GIB, gt=0, description="address space of the process that reads it")

    workers: int = Field(1, ge=0, le=64, description="worker processes that `serve` starts")
    lease_s: float = Field(10, gt=0, description="a worker that stays silent for this long loses its job")
    heartbeat_s: float = Field(2, gt=0)
    worker_poll_s: float = Field(0.5, gt=0, description="pause of an idle worker between two looks at the queue")
    scheduler_poll_s: float = Field(1, gt=0)
    events_poll_s: float = Field(0.5, gt=0, description="how often an open event stream looks at its job's revision")
    events_ping_s: float = Field(10, gt=0, description="longest silence of an event stream")
    shutdown_s: float = Field(8, gt=0, description="time that `serve` gives its children before it kills them")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            url = make_url(value)
        except ArgumentError as error:
            raise ValueError(f"{value!r}: not a database URL; like postgresql://user@host/bantam") from error
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        if url.drivername not in ("postgresql+psycopg", "sqlite"):
            raise ValueError(f"{url.drivername!r}: unknown store; use postgresql or sqlite")
        if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
            raise ValueError("a SQLite database in memory cannot be shared by processes; name a file")
        return url.render_as_string(hide_password=False)

    @property
    def database(self) -> str:
        """The database's URL, with the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'bantam.sqlite3'}"

    @property
    def token_file(self) -> Path:
        return self.data_dir / "token"

    @property
    def blobs_dir(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def uploads_dir(self) -> Path:
        """Unfinished uploads; on the same file system as the blobs, so that taking one over is a rename."""
        return self.data_dir / "uploads"

    @property
    def cache_dir(self) -> Path:
        return self.data_dir / "cache"

    def workspace(self, job_id: str) -> Path:
        return self.data_dir / "jobs" / job_id

    def environment(self) -> dict[str, str]:
        """These settings as variables for a child process."""
        return {f"BANTAM_{k.upper()}": str(v) for k, v in self.model_dump(mode="json", exclude_none=True).items()}
