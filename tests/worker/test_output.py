"""What is printed while tasks run, and to whom it goes."""

from __future__ import annotations

import io
import sys
import threading
from threading import Barrier

import pytest

from animaworks_tasks.worker.output import Printed, printed_to


def test_two_threads_that_print_at_once_each_get_their_own() -> None:
    # given
    together, got = Barrier(2), {name: bytearray() for name in "ab"}

    def tool(name: str) -> None:
        with printed_to(got[name].extend):
            for number in range(100):
                together.wait()
                print(name, number)

    # when
    threads = [threading.Thread(target=tool, args=(name,)) for name in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # then
    for name, log in got.items():
        assert "".join(f"{name} {number}\n" for number in range(100)).encode() == log


def test_stdout_and_stderr_are_restored_when_the_last_task_ends() -> None:
    # given
    before = (sys.stdout, sys.stderr)
    with printed_to(bytearray().extend):
        with printed_to(bytearray().extend):
            pass
        assert before != (sys.stdout, sys.stderr)

    # then
    assert before == (sys.stdout, sys.stderr)


def test_what_stood_in_for_a_stream_may_be_closed_when_that_stream_is_already() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        with printed_to(bytearray().extend):
            stand_in = sys.stdout
        sys.stdout.close()

    # when it is closed, as it is when it is forgotten: then nothing is raised
    stand_in.buffer.close()
    stand_in.close()


def test_what_others_print_meanwhile_goes_where_it_went(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    # given a task that is running, in this thread
    log = bytearray()
    with printed_to(log.extend):
        # when the host prints, from a thread of its own
        def host() -> None:
            print("the host says hello")
            print("and complains", file=sys.stderr)
            sys.stdout.flush()
            sys.stdout.buffer.write(b"in bytes\n")
            sys.stdout.buffer.flush()

        thread = threading.Thread(target=host)
        thread.start()
        thread.join()
        print("the task")

    # then
    captured = capfdbinary.readouterr()
    assert (b"the host says hello\nin bytes\n", b"and complains\n") == (captured.out, captured.err)
    assert b"the task\n" == log


def test_a_process_without_a_console_prints_to_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(sys, "stdout", None)
    problems: list[BaseException] = []

    def host() -> None:
        try:
            print("nobody hears this", flush=True)
            sys.stdout.buffer.write(b"nor this")
            with pytest.raises(io.UnsupportedOperation):
                sys.stdout.fileno()
            assert not sys.stdout.isatty()
        except BaseException as error:  # noqa: BLE001 - brought to the test's own thread
            problems.append(error)

    # when
    log = bytearray()
    with printed_to(log.extend):
        thread = threading.Thread(target=host)
        thread.start()
        thread.join()

    # then
    assert ([], bytearray()) == (problems, log)


def test_a_tools_stdout_behaves_like_a_stream_that_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled(), printed_to(bytearray().extend):
        assert sys.stdout.writable()
        assert sys.stdout.buffer.writable()
        assert not sys.stdout.isatty()
        assert "utf-8" == sys.stdout.encoding
        assert 1 == sys.stdout.fileno()


def test_text_that_is_not_utf_8_is_passed_on_readably() -> None:
    log = bytearray()
    with printed_to(log.extend):
        print("\udcff")
    assert b"\\udcff\n" == log


def test_a_line_is_passed_on_when_it_ends_or_is_flushed_or_grows_long() -> None:
    # given
    pieces: list[bytes] = []
    printed = Printed(pieces.append)

    # when, then
    printed.write(b"begun")
    assert [] == pieces
    printed.write(b", ended\nand")
    assert [b"begun, ended\nand"] == pieces
    printed.write(b" more")
    printed.flush()
    printed.flush()
    assert [b" more"] == pieces[1:]
    printed.write(b"x" * 8193)
    assert [b"x" * 8193] == pieces[2:]


def test_of_an_endless_output_the_beginning_is_kept_and_the_log_has_it_all() -> None:
    # given
    log = bytearray()
    printed = Printed(log.extend, limit=10)

    # when
    for _ in range(3):
        printed.write(b"1234567\n")

    # then
    assert "1234567\n12\n... 14 more bytes are in the log" == printed.text()
    assert b"1234567\n" * 3 == log


def test_a_stdout_that_was_replaced_while_a_task_ran_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back afterwards
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    hosts = io.StringIO()

    # when
    with printed_to(bytearray().extend):
        sys.stdout = sys.stderr = hosts

    # then
    assert (hosts, hosts) == (sys.stdout, sys.stderr)
