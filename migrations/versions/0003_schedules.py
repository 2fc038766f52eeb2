"""Policies and history of schedules, versions by name

Schedules that exist keep what they did: one run for what was missed, no warm start. Each model and dataset becomes a
version of its name, in the order in which they were uploaded.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for kind in ("model", "dataset"):
        _create_versions(kind)
    with op.batch_alter_table("schedules") as batch:
        batch.add_column(
            sa.Column(
                "missed", sa.String(20), nullable=False, server_default="run_once", comment="run_once, skip, run_all"
            )
        )
        batch.add_column(
            sa.Column(
                "overlap", sa.String(20), nullable=False, server_default="skip", comment="skip, queue, cancel_previous"
            )
        )
        batch.add_column(sa.Column("warm_start", sa.Boolean(), nullable=False, server_default=sa.false()))
    resolved = "what names in the specification stood for; null: it had none"
    op.add_column("jobs", sa.Column("resolved", sa.JSON(), nullable=True, comment=resolved))
    previous = "comparison with the schedule's last good job, made at the end"
    op.add_column("jobs", sa.Column("previous", sa.JSON(), nullable=True, comment=previous))
    _create_runs()


def downgrade() -> None:
    raise RuntimeError("0003 cannot be undone: jobs may be of versions that the release before does not know")


def _create_versions(kind: str) -> None:
    table = f"{kind}_versions"
    op.create_table(
        table,
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("object_id", sa.String(length=40), nullable=True, comment="null: deleted since"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["object_id"], [f"{kind}s.id"], name=op.f(f"fk_{table}_object_id_{kind}s"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f(f"fk_{table}_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "name", "number", name=op.f(f"pk_{table}")),
    )
    op.create_index(op.f(f"ix_{table}_object_id"), table, ["object_id"])
    op.execute(
        f"INSERT INTO {table} (project_id, name, number, object_id, created_at) "
        "SELECT project_id, name, "
        "row_number() OVER (PARTITION BY project_id, name ORDER BY created_at, id), id, created_at "
        f"FROM {kind}s"
    )


def _create_runs() -> None:
    op.create_table(
        "schedule_runs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("schedule_id", sa.String(length=40), nullable=False),
        sa.Column("tick", sa.Double(), nullable=True, comment="null: run by hand, beside the timetable"),
        sa.Column(
            "decision",
            sa.String(length=20),
            nullable=False,
            comment="submitted, waiting, skipped, missed, refused",
        ),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("decided_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_schedule_runs_job_id_jobs"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedules.id"],
            name=op.f("fk_schedule_runs_schedule_id_schedules"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_runs")),
        sa.UniqueConstraint("schedule_id", "tick", name=op.f("uq_schedule_runs_schedule_id_tick")),
    )
    for columns in (["job_id"], ["schedule_id", "id"], ["decision", "schedule_id"], ["decided_at"]):
        op.create_index(op.f(f"ix_schedule_runs_{'_'.join(columns)}"), "schedule_runs", columns)
