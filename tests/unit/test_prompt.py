"""Calls of the system that the connections' thread makes: they say what the socket module would."""

import select
import socket

import pytest

from qinling.cmd import prompt


def test_what_has_come_is_received_and_the_end_is_told() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(BlockingIOError):
            prompt.receive(ours.fileno(), 10)
        theirs.sendall(b"with a \0 in it")
        assert prompt.receive(ours.fileno(), 10) == b"with a \0 i"
        assert prompt.receive(ours.fileno(), 10) == b"n it"
        theirs.close()
        assert prompt.receive(ours.fileno(), 10) == b""


def test_as_much_is_sent_as_the_socket_takes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data = b"a \0 in it" * 1_000_000
        sent = prompt.send(ours.fileno(), data)
        assert 0 < sent < len(data)
        with pytest.raises(BlockingIOError):
            prompt.send(ours.fileno(), data)
        assert theirs.recv(sent, socket.MSG_WAITALL) == data[:sent]
        theirs.close()
        # And no signal ends the process.
        with pytest.raises(BrokenPipeError):
            prompt.send(ours.fileno(), data)


def test_what_was_unregistered_is_looked_at_no_more() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, select.epoll() as epoll:
        theirs.sendall(b"something")
        epoll.register(ours.fileno(), select.EPOLLIN)
        assert epoll.poll(0)
        prompt.unregister(epoll.fileno(), ours.fileno())
        assert not epoll.poll(0)
        with pytest.raises(FileNotFoundError):
            prompt.unregister(epoll.fileno(), ours.fileno())
