"""The tables. Times are seconds since the epoch by the database's clock; documents are JSON text.

`jobs.rev` is raised by every visible change of a job; a changed trial row and a new log line carry the job's revision
at that change, each its own. So "what changed since r" is a range of an index, and no poll recomputes anything.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Document = JSON(none_as_null=True)
DEFAULT_PROJECT = "default"


def _project() -> Column[str]:
    return Column("project_id", ForeignKey("projects.id"), nullable=False)


projects = Table(
    "projects",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("created_at", Double, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("scopes", String(100), nullable=False, comment="words with spaces between"),
    Column("digest", String(64), nullable=False, comment="sha256 of the secret"),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, comment="null: never"),
    Column("last_used_at", Double, comment="to the minute"),
    Index(None, "project_id", "created_at", "id"),
)

models = Table(
    "models",
    metadata,
    Column("id", String(40), primary_key=True),
    _project(),
    Column("name", String(200), nullable=False),
    Column("sha256", String(64), nullable=False, comment="of the uploaded bytes"),
    Column("bytes", BigInteger, nullable=False, comment="of the upload"),
    Column("blob", String(64), nullable=False, index=True, comment="the program that passed intake"),
    Column("description", _Document, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("project_id", "sha256"),
    Index(None, "project_id", "created_at", "id"),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(40), primary_key=True),
    _project(),
    Column("name", String(200), nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("description", _Document, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("project_id", "sha256"),
    Index(None, "project_id", "created_at", "id"),
)


def _versions(of: str) -> Table:
    """Uploads under a name, one row each. Numbers are never given twice: a row outlives what was uploaded."""
    return Table(
        f"{of}_versions",
        metadata,
        Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
        Column("name", String(200), primary_key=True),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("object_id", ForeignKey(f"{of}s.id", ondelete="SET NULL"), index=True, comment="null: deleted since"),
        Column("created_at", Double, nullable=False),
    )


model_versions = _versions("model")
dataset_versions = _versions("dataset")

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(40), primary_key=True),
    _project(),
    Column("name", String(200), nullable=False),
    Column("cron", String(200), nullable=False),
    Column("timezone", String(100), nullable=False),
    Column("job", _Document, nullable=False, comment="the JobSpec of each run"),
    Column("enabled", Boolean, nullable=False),
    Column("next_run_at", Double, comment="null while disabled"),
    Column("missed", String(20), nullable=False, server_default="run_once", comment="run_once, skip, run_all"),
    Column("overlap", String(20), nullable=False, server_default="skip", comment="skip, queue, cancel_previous"),
    Column("warm_start", Boolean, nullable=False, server_default=false()),
    Column("created_at", Double, nullable=False),
    Index(None, "enabled", "next_run_at"),
    Index(None, "project_id", "created_at", "id"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(40), primary_key=True),
    _project(),
    Column("name", String(200), nullable=False),
    Column("priority", Integer, nullable=False, comment="higher ones are taken first"),
    Column("model_id", ForeignKey("models.id", ondelete="SET NULL"), index=True, comment="null: deleted since"),
    Column("schedule_id", ForeignKey("schedules.id", ondelete="SET NULL")),
    Column("spec", _Document, nullable=False),
    Column("resolved", _Document, comment="what names in the specification stood for; null: it had none"),
    Column("previous", _Document, comment="comparison with the schedule's last good job, made at the end"),
    Column("state", String(20), nullable=False),
    Column("reason", Text),
    Column("outcome", String(20)),
    Column("directive", String(10), nullable=False, comment="what the owner wants: run, pause, cancel"),
    Column("rev", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("progress", _Document),
    Column("baseline", _Document),
    Column("best", _Document),
    Column("report", _Document),
    Column("lease_token", BigInteger, nullable=False, comment="raised whenever the lease changes hands"),
    Column("lease_worker", String(200)),
    Column("lease_acquired_at", Double),
    Column("lease_heartbeat_at", Double),
    Column("lease_expires_at", Double),
    Column("lease_losses", Integer, nullable=False, comment="attempts lost in a row since a trial last ended"),
    Column("max_attempts", Integer, nullable=False, server_default="5", comment="in a row, before it has failed"),
    Column("retry_at", Double, comment="a queued job is not taken up before; null: at once"),
    Column("attempts", _Document, comment="the newest ones: worker, started_at, ended_at, reason"),
    Column("elapsed_s", Double, nullable=False, comment="spent by coordinators before the present one"),
    Column("trial_counts", _Document, comment="trials by state; null: none yet, or written by an earlier release"),
    CheckConstraint("state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')", name="state"),
    CheckConstraint("directive IN ('run', 'pause', 'cancel')", name="directive"),
    Index(None, "project_id", "created_at", "id"),
    Index(None, "project_id", "state", "created_at", "id"),
    Index(None, "state", "priority", "created_at", "id"),
    Index(None, "schedule_id", "created_at"),
    Index(None, "schedule_id", "state", "finished_at"),
)

schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("schedule_id", ForeignKey("schedules.id", ondelete="CASCADE"), nullable=False),
    Column("tick", Double, comment="null: run by hand, beside the timetable"),
    Column("decision", String(20), nullable=False, comment="submitted, waiting, skipped, missed, refused"),
    Column("reason", Text),
    Column("job_id", ForeignKey("jobs.id", ondelete="SET NULL"), index=True),
    Column("decided_at", Double, nullable=False),
    UniqueConstraint("schedule_id", "tick"),
    Index(None, "schedule_id", "id"),
    Index(None, "decision", "schedule_id"),
    Index(None, "decided_at"),
)

trials = Table(
    "trials",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("rev", BigInteger, nullable=False),
    Column("state", String(20), nullable=False),
    Column("metric", Double),
    Column("feasible", Boolean),
    Column("on_front", Boolean, nullable=False),
    Column("document", _Document, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("summary", _Document, comment="one short line of it; null: written by an earlier release"),
    Index(None, "job_id", "rev", unique=True),
    Index(None, "job_id", "state"),
    Index(None, "job_id", "on_front"),
)

curve_points = Table(
    "curve_points",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("curve", String(20), primary_key=True, comment="best, hypervolume"),
    Column("ordinal", Integer, primary_key=True, autoincrement=False, comment="0, 1, ...: changes of the curve"),
    Column("elapsed_s", Double, nullable=False, comment="spent by coordinators until then"),
    Column("document", _Document, nullable=False),
)

job_logs = Table(
    "job_logs",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False, comment="the job's revision at this line"),
    Column("at", Double, nullable=False),
    Column("level", String(10), nullable=False),
    Column("message", Text, nullable=False),
    Column("trial", Integer),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(20), primary_key=True),
    Column("filename", String(255), nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("added_at", Double, nullable=False),
    Column("unused_since", Double, index=True, comment="null: a row refers to it, or is about to"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_sha256", String(64), comment="null: from a release that kept another digest; fits any request"),
    Column("object_id", String(40), nullable=False, comment="what the first request made or changed"),
    Column("created_at", Double, nullable=False, index=True),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("schedule_id", ForeignKey("schedules.id", ondelete="CASCADE"), index=True, comment="null: all jobs"),
    Column("url", Text, nullable=False),
    Column("events", String(100), nullable=False, comment="words with spaces between"),
    Column("secret", String(100), nullable=False, comment="signs each request, so it is kept as it is"),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Index(None, "project_id", "created_at", "id"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(40), primary_key=True, comment="of the event, for this webhook"),
    Column("webhook_id", ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("event", String(20), nullable=False),
    Column("job_id", String(40), comment="no foreign key: the event outlives its job"),
    Column("body", Text, nullable=False, comment="as it is signed and sent"),
    Column("state", String(20), nullable=False, comment="pending, delivered, dead"),
    Column("attempts", Integer, nullable=False, comment="begun so far"),
    Column("next_attempt_at", Double, comment="null: none"),
    Column("claimed_until", Double, comment="a scheduler is sending it; null: none is"),
    Column("status", Integer, comment="of the last answer"),
    Column("reason", Text, comment="why the last attempt failed"),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double, comment="delivered or given up"),
    Index(None, "webhook_id", "created_at", "id"),
    Index(None, "webhook_id", "state", "next_attempt_at"),
    Index(None, "state", "next_attempt_at"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("project_id", String(40), nullable=False, comment="no foreign key: the trail outlives what it names"),
    Column("token_id", String(40), nullable=False),
    Column("token_name", String(200), nullable=False),
    Column("client", String(100), comment="network address; of the proxy, if there is one"),
    Column("method", String(10), nullable=False),
    Column("route", String(200), nullable=False),
    Column("object", String(300), nullable=False, comment="path of what was made or changed"),
    Column("status", Integer, nullable=False, comment="of the answer"),
    Column("request_id", String(100), nullable=False),
    Index(None, "project_id", "id"),
    Index(None, "object", "id"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("job_id", String(40), comment="the job it works on; null while idle"),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
)
