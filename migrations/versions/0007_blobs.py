"""A register of blobs, so that what nothing refers to can be collected

What rows refer to is noted here; files that no row refers to are found by the collector, which lists the store.

Revision ID: 0007
Revises: 0006
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    blobs = op.create_table(
        "blobs",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("added_at", sa.Double(), nullable=False),
        sa.Column(
            "unused_since", sa.Double(), nullable=True, comment="null: a row refers to it, or is about to"
        ),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blobs")),
    )
    op.create_index(op.f("ix_blobs_unused_since"), "blobs", ["unused_since"])
    op.create_index(op.f("ix_models_blob"), "models", ["blob"])
    op.create_index(op.f("ix_datasets_sha256"), "datasets", ["sha256"])
    op.create_index(op.f("ix_artifacts_sha256"), "artifacts", ["sha256"])
    connection = op.get_bind()
    found: dict[str, int] = {}
    for query in (
        "SELECT blob, bytes FROM models",
        "SELECT sha256, bytes FROM datasets",
        "SELECT sha256, bytes FROM artifacts",
    ):
        found.update({sha256: size for sha256, size in connection.execute(sa.text(query))})
    now = time.time()
    rows = [{"sha256": sha256, "bytes": size, "added_at": now, "unused_since": None} for sha256, size in found.items()]
    if rows:
        op.bulk_insert(blobs, rows)


def downgrade() -> None:
    op.drop_index(op.f("ix_artifacts_sha256"), "artifacts")
    op.drop_index(op.f("ix_datasets_sha256"), "datasets")
    op.drop_index(op.f("ix_models_blob"), "models")
    op.drop_table("blobs")
