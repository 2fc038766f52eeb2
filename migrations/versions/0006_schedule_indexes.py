"""Indexes that keep the end of a scheduled job, its overlap check and its webhooks as fast after years as on day one

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ADDED = (
    ("jobs", ["schedule_id", "created_at"]),
    ("jobs", ["schedule_id", "state", "finished_at"]),
    ("webhook_deliveries", ["webhook_id", "state", "next_attempt_at"]),
)


def upgrade() -> None:
    for table, columns in _ADDED:
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, columns)
    op.drop_index(op.f("ix_jobs_schedule_id"), table_name="jobs")


def downgrade() -> None:
    op.create_index(op.f("ix_jobs_schedule_id"), "jobs", ["schedule_id"])
    for table, columns in _ADDED:
        op.drop_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table_name=table)
