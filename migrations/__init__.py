"""The database's schema, one idea per revision, and its functions, one per file."""

from pathlib import Path

FUNCTIONS = Path(__file__).parent / "functions"


def function(name: str) -> str:
    """The ``create or replace function`` statement of ``functions/<name>.sql``."""
    return (FUNCTIONS / f"{name}.sql").read_text()


def statements(text: str) -> list[str]:
    """The statements of a script without functions, one by one: a driver takes them singly."""
    return [statement for statement in text.split(";\n") if statement.strip()]
