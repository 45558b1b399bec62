"""System calls for sockets that neither wait nor give up Python's lock.

The thread in which connections wait reads from all of them and answers what is too many. With
``os`` and ``socket`` it would give the lock up at each call, and have it back after a thread that
has something to do: a millisecond each, when there are some, so that it came to a few hundred
requests in a second, and everything comes through it. These calls take microseconds.
"""

import ctypes
import os
import socket

_LIBC = ctypes.PyDLL(None, use_errno=True)
_LIBC.recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_LIBC.recv.restype = ctypes.c_ssize_t
_LIBC.send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_LIBC.send.restype = ctypes.c_ssize_t
_LIBC.epoll_ctl.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)

_EPOLL_CTL_DEL = 2


def receive(descriptor: int, size: int) -> bytes:
    """What has come, up to ``size`` bytes; none at the client's end.

    :raises BlockingIOError: nothing has. :raises OSError: the connection is broken.
    """
    buffer = ctypes.create_string_buffer(size)
    count = _checked(_LIBC.recv(descriptor, buffer, size, socket.MSG_DONTWAIT))
    return ctypes.string_at(buffer, count)


def send(descriptor: int, data: bytes) -> int:
    """Send as much of it as the socket takes; returns its bytes. Errors as of ``receive``."""
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    return _checked(_LIBC.send(descriptor, data, len(data), flags))


def unregister(epoll: int, descriptor: int) -> None:
    """Have an epoll object no longer look at a descriptor.

    :raises OSError: it does not.
    """
    _checked(_LIBC.epoll_ctl(epoll, _EPOLL_CTL_DEL, descriptor, None))


def _checked(count: int) -> int:
    if count < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return count
