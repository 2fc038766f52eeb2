"""What makes reading cheap: a short line of each trial, counts of trials by state, curves of the best so far

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CURVE = ("trial", "metric", "latency_ratio", "size_ratio", "feasible")


def upgrade() -> None:
    document = sa.JSON(none_as_null=True)
    op.add_column(
        "trials",
        sa.Column(
            "summary", document, nullable=True, comment="one short line of it; null: written by an earlier release"
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "trial_counts",
            document,
            nullable=True,
            comment="trials by state; null: none yet, or written by an earlier release",
        ),
    )
    points = op.create_table(
        "curve_points",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("curve", sa.String(length=20), nullable=False, comment="best, hypervolume"),
        sa.Column(
            "ordinal", sa.Integer(), autoincrement=False, nullable=False, comment="0, 1, ...: changes of the curve"
        ),
        sa.Column("elapsed_s", sa.Double(), nullable=False, comment="spent by coordinators until then"),
        sa.Column("document", document, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_curve_points_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "curve", "ordinal", name=op.f("pk_curve_points")),
    )
    _begin_curves(points)


def _begin_curves(points: sa.Table) -> None:
    """How the best of older jobs came about is not known: their curves begin with what it is now."""
    jobs = sa.table("jobs", sa.column("id"), sa.column("elapsed_s"), sa.column("best", sa.JSON(none_as_null=True)))
    found = op.get_bind().execute(sa.select(jobs).where(jobs.c.best.is_not(None))).all()
    rows = [
        {
            "job_id": job.id,
            "curve": "best",
            "ordinal": 0,
            "elapsed_s": job.elapsed_s,
            "document": {name: job.best.get(name) for name in _CURVE},
        }
        for job in found
        if job.best
    ]
    op.bulk_insert(points, rows)


def downgrade() -> None:
    op.drop_table("curve_points")
    op.drop_column("jobs", "trial_counts")
    op.drop_column("trials", "summary")
