"""Tables at a terminal, and nothing that came from a message drives that terminal."""

from __future__ import annotations

import io

import pytest

from app.cli.output import Output, shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    return Terminal()


def table(terminal: Terminal) -> list[list[str]]:
    return [line.split() for line in terminal.getvalue().splitlines()]


def test_a_list_is_a_table_at_a_terminal(terminal: Terminal) -> None:
    documents = [b'{"name":"orders","distribution":{"partitions":4}}', b'{"name":"[red]x","distribution":null}']
    Output(stream=terminal).rows(documents, [("name", "name"), ("partitions", "distribution.partitions")])
    assert table(terminal) == [["name", "partitions"], ["orders", "4"], ["[red]x"]]


def test_an_empty_list_says_so_at_a_terminal(terminal: Terminal) -> None:
    Output(stream=terminal).rows([], [("name", "name")])
    assert terminal.getvalue() == "(none)\n"


def test_a_thing_is_its_fields_and_its_lists_at_a_terminal(terminal: Terminal) -> None:
    Output(stream=terminal).document(b'{"lag":3,"retries":{"max":1},"partitions":[{"partition":0,"lag":3}],"tags":[]}')
    assert table(terminal) == [
        ["lag", "3"], ["retries.max", "1"], ["tags", "[]"], [], ["partitions"], ["partition", "lag"], ["0", "3"],
    ]  # fmt: skip


def test_what_is_zero_in_every_row_gets_no_column(terminal: Terminal) -> None:
    Output(stream=terminal).document(
        b'{"partitions":[{"partition":0,"held":0,"lag":0},{"partition":1,"held":0,"lag":2}]}'
    )
    assert table(terminal)[-3:] == [["partition", "lag"], ["0", "0"], ["1", "2"]]


def test_a_change_is_a_sentence_at_a_terminal_and_the_answer_elsewhere(terminal: Terminal) -> None:
    Output(stream=terminal).done("Paused.", b'{"paused":true}')
    assert terminal.getvalue() == "Paused.\n"
    for answer, printed in ((b'{"paused":true}', '{"paused":true}\n'), (b"", "")):
        Output(stream=(pipe := io.StringIO())).done("Paused.", answer)
        assert pipe.getvalue() == printed


def test_json_is_printed_at_a_terminal_when_asked_for(terminal: Terminal) -> None:
    Output(as_json=True, stream=terminal).document(b'{"a":1}')
    assert terminal.getvalue() == '{"a":1}\n'


def test_no_control_character_reaches_a_terminal(terminal: Terminal) -> None:
    assert shown("\x1b[2J\x9b1m\x07\n\u2028é") == "\\u001b[2J\\u009b1m\\u0007\\u000a\\u2028é"
    Output(as_json=True, stream=terminal).line('{"a":"\x9b31m\x7f"}'.encode())
    Output(stream=terminal).done("Paused \x1b]0;x\x07.")
    Output(stream=terminal).rows(['{"a":"\x9b31m"}'.encode()], [("a", "a")])
    assert not [letter for letter in terminal.getvalue() if letter != "\n" and not letter.isprintable()]
