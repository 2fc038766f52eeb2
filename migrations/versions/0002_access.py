"""Projects, tokens, audit log, priorities; idempotency keys for every POST

All that exists belongs to the project `default`.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from service.database import db_now

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DEFAULT_PROJECT = "default"


def upgrade() -> None:
    projects = op.create_table(
        "projects",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.execute(projects.insert().values(id=DEFAULT_PROJECT, name="Default", created_at=db_now()))
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("scopes", sa.String(length=100), nullable=False, comment="words with spaces between"),
        sa.Column("digest", sa.String(length=64), nullable=False, comment="sha256 of the secret"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True, comment="null: never"),
        sa.Column("last_used_at", sa.Double(), nullable=True, comment="to the minute"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_tokens_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_project_id_created_at_id"), "tokens", ["project_id", "created_at", "id"])
    _create_audit_log()
    _give_rows_to_the_default_project()

    for table in ("models", "datasets"):
        with op.batch_alter_table(table) as batch:
            batch.alter_column("project_id", existing_type=sa.String(length=40), nullable=False)
            batch.create_foreign_key(op.f(f"fk_{table}_project_id_projects"), "projects", ["project_id"], ["id"])
            batch.drop_constraint(op.f(f"uq_{table}_sha256"), type_="unique")
            batch.create_unique_constraint(op.f(f"uq_{table}_project_id_sha256"), ["project_id", "sha256"])
            batch.create_index(op.f(f"ix_{table}_project_id_created_at_id"), ["project_id", "created_at", "id"])
    with op.batch_alter_table("schedules") as batch:
        batch.alter_column("project_id", existing_type=sa.String(length=40), nullable=False)
        batch.create_foreign_key(op.f("fk_schedules_project_id_projects"), "projects", ["project_id"], ["id"])
        batch.create_index(op.f("ix_schedules_project_id_created_at_id"), ["project_id", "created_at", "id"])
    _change_jobs()
    _change_idempotency_keys()


def downgrade() -> None:
    raise RuntimeError("0002 cannot be undone: tenants would share their rows; restore the backup from before it")


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column(
            "project_id",
            sa.String(length=40),
            nullable=False,
            comment="no foreign key: the trail outlives what it names",
        ),
        sa.Column("token_id", sa.String(length=40), nullable=False),
        sa.Column("token_name", sa.String(length=200), nullable=False),
        sa.Column(
            "client", sa.String(length=100), nullable=True, comment="network address; of the proxy, if there is one"
        ),
        sa.Column("method", sa.String(length=10), nullable=False),
        sa.Column("route", sa.String(length=200), nullable=False),
        sa.Column("object", sa.String(length=300), nullable=False, comment="path of what was made or changed"),
        sa.Column("status", sa.Integer(), nullable=False, comment="of the answer"),
        sa.Column("request_id", sa.String(length=100), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_at"), "audit_log", ["at"])
    op.create_index(op.f("ix_audit_log_project_id_id"), "audit_log", ["project_id", "id"])
    op.create_index(op.f("ix_audit_log_object_id"), "audit_log", ["object", "id"])


def _give_rows_to_the_default_project() -> None:
    for table in ("models", "datasets", "schedules", "jobs"):
        op.add_column(table, sa.Column("project_id", sa.String(length=40), nullable=True))
        op.execute(sa.table(table, sa.column("project_id")).update().values(project_id=DEFAULT_PROJECT))
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=True, comment="higher ones are taken first"))
    op.execute(sa.table("jobs", sa.column("priority")).update().values(priority=0))


def _change_jobs() -> None:
    op.drop_index(op.f("ix_jobs_created_at_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_state_created_at_id"), table_name="jobs")
    with op.batch_alter_table("jobs") as batch:
        batch.alter_column("project_id", existing_type=sa.String(length=40), nullable=False)
        batch.alter_column(
            "priority",
            existing_type=sa.Integer(),
            nullable=False,
            existing_comment="higher ones are taken first",
        )
        batch.alter_column(
            "model_id", existing_type=sa.String(length=40), nullable=True, comment="null: deleted since"
        )
        batch.create_foreign_key(op.f("fk_jobs_project_id_projects"), "projects", ["project_id"], ["id"])
        batch.drop_constraint(op.f("fk_jobs_model_id_models"), type_="foreignkey")
        batch.create_foreign_key(
            op.f("fk_jobs_model_id_models"), "models", ["model_id"], ["id"], ondelete="SET NULL"
        )
        batch.create_index(op.f("ix_jobs_model_id"), ["model_id"])
        batch.create_index(op.f("ix_jobs_project_id_created_at_id"), ["project_id", "created_at", "id"])
        batch.create_index(op.f("ix_jobs_project_id_state_created_at_id"), ["project_id", "state", "created_at", "id"])
        batch.create_index(op.f("ix_jobs_state_priority_created_at_id"), ["state", "priority", "created_at", "id"])


def _change_idempotency_keys() -> None:
    """The digest that was kept is of the job's specification alone and cannot be worked out anew: it is dropped."""
    old = sa.table("idempotency_keys", sa.column("key"), sa.column("job_id"), sa.column("created_at"))
    kept = op.get_bind().execute(sa.select(old)).all()
    op.drop_table("idempotency_keys")
    new = op.create_table(
        "idempotency_keys",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column(
            "request_sha256",
            sa.String(length=64),
            nullable=True,
            comment="null: from a release that kept another digest; fits any request",
        ),
        sa.Column(
            "object_id", sa.String(length=40), nullable=False, comment="what the first request made or changed"
        ),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_idempotency_keys_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])
    rows = [
        {"project_id": DEFAULT_PROJECT, "key": r.key, "object_id": r.job_id, "created_at": r.created_at} for r in kept
    ]
    op.bulk_insert(new, rows)
