"""Alembic's entry: uses the connection that `service.migrate` hands over, or the settings when called by `alembic`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from service.database import Database
from service.settings import Settings
from service.tables import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    database = Database(Settings().database)
    with database.rebuild() as connection:
        run(connection)
    database.close()
