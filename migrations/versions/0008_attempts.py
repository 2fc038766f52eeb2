"""Attempts at a job, and how many may be lost before it has failed

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(
            sa.Column(
                "max_attempts",
                sa.Integer(),
                server_default="5",
                nullable=False,
                comment="in a row, before it has failed",
            )
        )
        batch.add_column(
            sa.Column(
                "retry_at", sa.Double(), nullable=True, comment="a queued job is not taken up before; null: at once"
            )
        )
        batch.add_column(
            sa.Column(
                "attempts",
                sa.JSON(none_as_null=True),
                nullable=True,
                comment="the newest ones: worker, started_at, ended_at, reason",
            )
        )
        batch.alter_column(
            "lease_losses", existing_type=sa.Integer(), comment="attempts lost in a row since a trial last ended"
        )


def downgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        for name in ("attempts", "retry_at", "max_attempts"):
            batch.drop_column(name)
