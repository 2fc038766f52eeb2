"""Settings of every process of the service: `BANTAM_*` variables, read when a process starts, never at import."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from search.logs import LogFormat
from service.tables import DEFAULT_PROJECT

MIB = 1024**2
GIB = 1024**3
DAY = 86400
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_WILDCARDS = ("0.0.0.0", "::", "")


class Settings(BaseSettings):
    """Durations in seconds (`_s`), sizes in bytes (`_bytes`)."""

    model_config = SettingsConfigDict(env_prefix="BANTAM_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("bantam-data"), description="token, database, blobs, cache and workspaces")
    database_url: str | None = Field(None, description="left out: SQLite in the data folder")
    blobs_url: str | None = Field(None, description="left out: the data folder; else a URL of fsspec (s3://bucket/x)")
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: LogFormat = Field("text", description="json: one object a line, for a log collector")
    access_log: bool = Field(True, description="one line per request")
    allowed_hosts: str = Field("", description="names with commas between, beside the loopback ones and `host`")

    max_model_bytes: int = Field(2 * GIB, gt=0)
    max_dataset_bytes: int = Field(16 * GIB, gt=0)
    max_upload_bytes: int = Field(16 * GIB, gt=0, description="of any upload")
    upload_s: float = Field(3600, gt=0, description="time for one upload to arrive")
    upload_idle_s: float = Field(30, gt=0, description="longest silence within an upload")
    max_uploads: int = Field(4, ge=1, description="uploads at a time, per project and API process")
    max_body_bytes: int = Field(MIB, gt=0, description="of a request other than an upload")
    body_s: float = Field(30, gt=0, description="time for such a body to arrive")
    max_models: int = Field(1000, ge=0, description="per project, as are the next six")
    max_datasets: int = Field(1000, ge=0)
    max_stored_bytes: int | None = Field(None, gt=0, description="of all models and datasets")
    max_schedules: int = Field(100, ge=0)
    max_webhooks: int = Field(50, ge=0)
    max_queued_jobs: int = Field(1000, ge=1)
    max_running_jobs: int | None = Field(None, ge=1)
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
    events_max_s: float = Field(3600, gt=0, description="an event stream ends after this; its reader comes back")
    webhook_allow_private: bool = Field(False, description="webhooks may go to private and loopback addresses")
    webhook_timeout_s: float = Field(10, gt=0, le=60, description="for one attempt, from look-up to answer")
    webhook_attempts: int = Field(8, ge=1, le=50, description="then an event is given up")
    webhook_retry_s: float = Field(10, gt=0, description="pause after the first attempt; each is four times the last")
    webhook_keep_s: float = Field(30 * DAY, gt=0, description="deliveries that have ended")
    blobs_keep_s: float = Field(7 * DAY, gt=0, description="a file to which nothing refers any more")
    artifacts_keep_s: float | None = Field(None, gt=0, description="of ended jobs; left out: as long as the job")
    workspaces_keep_s: float = Field(DAY, gt=0, description="a job's folder after its end")
    cache_bytes: int = Field(20 * GIB, gt=0, description="results of stages in the data folder, of all projects")
    blob_cache_bytes: int = Field(64 * GIB, gt=0, description="local copies of files that lie in a remote store")
    audit_keep_s: float = Field(365 * DAY, gt=0)
    idempotency_keep_s: float = Field(30 * DAY, gt=0)
    schedule_runs_keep_s: float = Field(365 * DAY, gt=0, description="what became of the ticks of schedules")
    shutdown_s: float = Field(8, gt=0, description="time that `serve` gives its children before it kills them")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("blobs_url")
    @classmethod
    def _a_url(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError(f"{value!r}: not a URL; like s3://bucket/prefix or file:///srv/bantam")
        return value

    @model_validator(mode="after")
    def _uploads_end_before_they_are_collected(self) -> Self:
        if self.blobs_keep_s <= self.upload_s + self.dataset_read_s:
            # A file is written before the row that refers to it is there.
            least = self.upload_s + self.dataset_read_s
            raise ValueError(
                f"BANTAM_BLOBS_KEEP_S={self.blobs_keep_s:g}: not above {least:g}, the longest that an upload may take "
                "(BANTAM_UPLOAD_S + BANTAM_DATASET_READ_S); raise it or lower them"
            )
        return self

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
    def host_names(self) -> tuple[str, ...]:
        """What the Host header of a request may say; patterns such as `*.example.org` too."""
        bound = () if self.host in _WILDCARDS else (self.host,)
        return (*LOOPBACK, *bound, *(name.strip() for name in self.allowed_hosts.split(",") if name.strip()))

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

    def cache(self, project_id: str) -> Path:
        """Results of stages. One per project: a hit would tell a tenant what another one has computed."""
        folder = self.data_dir / "cache"
        return folder if project_id == DEFAULT_PROJECT else folder / f"project-{project_id}"

    def workspace(self, job_id: str) -> Path:
        """Of this host; each of the job's leases has a sub-folder of its own."""
        return self.data_dir / "jobs" / job_id

    def environment(self) -> dict[str, str]:
        """These settings as variables for a child process."""
        return {f"BANTAM_{k.upper()}": str(v) for k, v in self.model_dump(mode="json", exclude_none=True).items()}
