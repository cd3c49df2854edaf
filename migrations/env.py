"""How alembic reaches the database.

The server hands over its own connection (``app.storage.migrate``). From the command line (``alembic upgrade head``)
we open one to ``LOGPOST_DATABASE_URL``.
"""

import asyncio
import os

import asyncpg
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.storage.tables import metadata

# A migration that waits for a lock makes every request behind it wait as well: rather fail and be tried again.
LOCK_TIMEOUT_MS = 10_000


def upgrade(connection: Connection) -> None:
    connection.execute(text(f"set lock_timeout = {LOCK_TIMEOUT_MS}"))
    connection.commit()  # alembic opens a transaction for each migration, unless it finds one open
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_upgrade() -> None:
    dsn = os.environ["LOGPOST_DATABASE_URL"]
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), poolclass=NullPool
    )
    async with engine.connect() as connection:
        await connection.run_sync(upgrade)
    await engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif (ours := context.config.attributes.get("connection")) is not None:
    upgrade(ours)
else:
    asyncio.run(connect_and_upgrade())
