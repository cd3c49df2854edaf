"""The migrations make exactly the tables that app/storage/tables/ shows."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.storage.migrate import MIGRATIONS, migrate
from app.storage.migrate import _run_alembic as run_alembic
from app.storage.tables import metadata

FUNCTIONS = MIGRATIONS / "functions"

# Everything that makes a column, a constraint, an index or a table's storage what it is, as the server words it.
SHAPES = """
select c.relname || '.' || a.attname as name,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' end,
                 'default ' || pg_get_expr(d.adbin, d.adrelid), 'identity ' || nullif(a.attidentity::text, '')) as shape
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relkind = 'r' and c.relnamespace = $1::text::regnamespace
union all
select o.conrelid::regclass::text || ' ' || o.conname, pg_get_constraintdef(o.oid)
from pg_constraint o where o.connamespace = $1::text::regnamespace and o.contype <> 'n'
union all
select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
from pg_index i join pg_class c on c.oid = i.indexrelid where c.relnamespace = $1::text::regnamespace
union all
select c.relname, coalesce(array_to_string(c.reloptions, ','), '')
from pg_class c where c.relkind = 'r' and c.relnamespace = $1::text::regnamespace
"""


def engine_on(dsn: str) -> AsyncEngine:
    return create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), poolclass=NullPool)


@pytest.fixture
async def engine(dsn: str) -> AsyncIterator[AsyncEngine]:
    engine = engine_on(dsn)
    yield engine
    await engine.dispose()


async def test_alembic_finds_no_difference(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        return list(compare_metadata(context, metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_server_describes_both_alike(engine: AsyncEngine, dsn: str) -> None:
    """Checks, partial indexes and storage parameters too, which alembic does not compare."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("alter schema public rename to migrated; create schema public")
        async with engine.begin() as making:
            await making.run_sync(metadata.create_all)
        shapes = []
        for schema in ("migrated", "public"):
            await connection.execute(f"set search_path = {schema}")
            rows = await connection.fetch(SHAPES, schema)
            shapes.append({row["name"]: row["shape"].replace(f"{schema}.", "") for row in rows})
        migrated, shown = shapes
        for leftover in [name for name in migrated if name.startswith("alembic_version")]:
            del migrated[leftover]
        assert migrated == shown
    finally:
        await connection.close()


async def test_migrating_again_changes_nothing(dsn: str) -> None:
    await migrate(dsn)
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("select version_num from alembic_version")
        assert [row["version_num"] for row in rows] == [revisions().get_current_head()]
    finally:
        await connection.close()


async def test_a_start_survives_a_database_that_goes_away_while_it_migrates(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 7 of the fault suite: the postmaster was killed while a replica started, which then ended itself."""
    broken: list[int] = []

    def break_off(connection: Connection) -> None:
        if not broken:
            broken.append(connection.execute(text("select pg_backend_pid()")).scalar_one())
            connection.execute(text("select pg_terminate_backend(pg_backend_pid())"))
        run_alembic(connection)

    monkeypatch.setattr("app.storage.migrate._run_alembic", break_off)
    await migrate(dsn)
    assert broken


def revisions() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config)


def test_revisions_are_one_line_in_the_order_of_their_file_names() -> None:
    assert len(revisions().get_heads()) == 1
    in_order = [script.revision for script in reversed(list(revisions().walk_revisions()))]
    files = sorted(path.name for path in (MIGRATIONS / "versions").glob("*.py"))
    assert in_order == [name.partition("_")[0] for name in files]


def test_every_function_file_is_applied_by_a_migration_and_named_for_what_it_makes() -> None:
    applied = "".join(path.read_text() for path in sorted((MIGRATIONS / "versions").glob("*.py")))
    for file in sorted(FUNCTIONS.glob("*.sql")):
        assert f'"{file.stem}"' in applied, f"{file.name} is applied by no migration"
        assert made_by(file) == {file.stem}


def made_by(file: Path) -> set[str]:
    return set(re.findall(r"^create or replace function (\w+)\(", file.read_text(), re.MULTILINE))
