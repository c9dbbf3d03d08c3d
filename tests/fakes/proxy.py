"""A real HTTP proxy that makes tunnels."""

import asyncio


class Tunnel:
    """An HTTP proxy for CONNECT. `refusal` is what it answers instead, where it is set."""

    def __init__(self, refusal: bytes = b"") -> None:
        self.targets: list[str] = []
        self.heads: list[str] = []
        self._refusal = refusal

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            writer.close()
            return
        target = head.split(" ", 2)[1]
        self.targets.append(target)
        self.heads.append(head)
        if self._refusal:
            writer.write(self._refusal)
            writer.close()
            return
        host, _, port = target.rpartition(":")
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(pumped(reader, there_writer), pumped(there_reader, writer))


async def pumped(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Passes on what comes until it ends."""
    try:
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()
