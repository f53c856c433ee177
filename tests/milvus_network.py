"""A network without a way out, and one way in: `python milvus_network.py FD=PORT ...`.

It is run in a network namespace that `unshare` has just made (`tests.milvus_server` does that), by
nothing but the standard library. It starts that network's loopback, says `ready`, and joins every
connection to a listening socket FD, which is of the network outside, with PORT inside. It ends with
its standard input.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h
_REQUEST = "16sH22x"


def start_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        told = fcntl.ioctl(any_socket, _GET_FLAGS, struct.pack(_REQUEST, b"lo", 0))
        _, flags = struct.unpack(_REQUEST, told)
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack(_REQUEST, b"lo", flags | _UP))


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while some := await source.read(1 << 16):
        sink.write(some)
        await sink.drain()
    sink.write_eof()


async def _join(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Both directions, until both have ended or one has failed."""
    ends = [writer]
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        ends.append(inner_writer)
        await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
    except OSError:
        pass  # nobody listens there, or one of them is gone: the other is told by the end
    finally:
        for end in ends:
            end.close()


async def serve(doors: dict[int, int]) -> None:
    """Until the standard input ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    for fd, port in doors.items():
        listening = socket.socket(fileno=fd)
        await asyncio.start_server(lambda r, w, port=port: _join(port, r, w), sock=listening)  # type: ignore[misc]
    print("ready", flush=True)
    await ended.wait()


if __name__ == "__main__":
    start_loopback()
    given = (argument.split("=") for argument in sys.argv[1:])
    asyncio.run(serve({int(fd): int(port) for fd, port in given}))
