"""TCP and TLS on loopback: framing, reuse of connections, keep-alives, limits, certificates."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sipnemo.roles.node import Closed, Count, Input, Link, Received, Send, SendFailed
from sipnemo.shell.streams import Streams
from sipnemo.shell.tls import Tls, TlsError, TlsSettings
from sipnemo.sip.flow import Flow, Local


def message(body: bytes = b"") -> bytes:
    return b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def free_port(host: str = "127.0.0.1") -> int:
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def local(transport: str = "TCP", host: str = "127.0.0.1") -> Local:
    return Local(transport, host, free_port(host))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_sides_use_one_connection(host: str) -> None:
    async def story() -> None:
        seen_a: list[Input] = []
        seen_b: list[Input] = []
        a, b = Streams(seen_a.append), Streams(seen_b.append)
        at_a, at_b = local(host=host), local(host=host)
        a.listen(at_a)
        b.listen(at_b)
        there = Flow(at_a, (host, at_b.port))
        for number in range(3):
            a.send(Send(message(b"%d" % number), there))
        await until(lambda: len(seen_b) == 3)
        assert [r.data for r in seen_b if isinstance(r, Received)] == [message(b"%d" % n) for n in range(3)]
        (received, *_) = seen_b
        assert isinstance(received, Received)
        assert received.flow.local == at_b
        b.send(Send(message(b"back"), received.flow))  # by its ephemeral port: the same connection
        await until(lambda: seen_a)
        assert seen_a == [Received(message(b"back"), there)]
        assert len(a.flows) == len(b.flows) == 1
        await b.close()
        await until(lambda: Closed(there) in seen_a)
        assert a.flows == frozenset()
        await a.close()

    asyncio.run(story())


def test_a_new_connection_follows_a_closed_one() -> None:
    async def story() -> None:
        seen: list[Input] = []
        arrived: list[Input] = []
        a, b = Streams(seen.append), Streams(arrived.append)
        at_b = local()
        b.listen(at_b)
        flow = Flow(local(), ("127.0.0.1", at_b.port))
        for _turn in range(3):
            a.send(Send(message(), flow))
            await until(lambda: arrived)
            b.unlisten(at_b)
            await until(lambda: Closed(flow) in seen)
            b.listen(at_b)
            arrived.clear()
            seen.clear()
        await a.close()
        await b.close()

    asyncio.run(story())


def test_a_refused_connection_fails_the_flow() -> None:
    async def story() -> None:
        seen: list[Input] = []
        streams = Streams(seen.append)
        flow = Flow(local(), ("127.0.0.1", free_port()))
        streams.send(Send(message(), flow))
        streams.send(Send(message(), flow))
        await until(lambda: seen)
        assert seen == [SendFailed(flow, "Connection refused")]
        await streams.close()

    asyncio.run(story())


def test_a_connection_that_does_not_open_in_time_fails_the_flow() -> None:
    async def story() -> None:
        with closing(socket.socket()) as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            port = deaf.getsockname()[1]
            with closing(socket.create_connection(("127.0.0.1", port))):  # fills the backlog
                seen: list[Input] = []
                streams = Streams(seen.append, connect_within=0.05)
                flow = Flow(local(), ("127.0.0.1", port))
                streams.send(Send(message(), flow))
                await until(lambda: seen)
                assert seen == [SendFailed(flow, "no connection within 0.05 s")]
                await streams.close()

    asyncio.run(story())


def test_a_far_end_that_does_not_read_is_given_up() -> None:
    async def story() -> None:
        with closing(socket.socket()) as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen()
            seen: list[Input] = []
            streams = Streams(seen.append, max_output=100_000)
            flow = Flow(local(), ("127.0.0.1", deaf.getsockname()[1]))
            async with asyncio.timeout(10):
                while not seen:
                    streams.send(Send(message(b"x" * 10_000), flow))
                    await asyncio.sleep(0)
            assert seen == [SendFailed(flow, "the far end does not take what is sent")]
            await streams.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        pytest.param(b"\r\n\r\n", b"\r\n", id="ping is answered"),
        pytest.param(b"\r\n\r\n\r\n\r\n", b"\r\n\r\n", id="two pings are answered"),
        pytest.param(
            b"OPTIONS sip:a SIP/2.0\r\nCall-ID: x\r\n\r\n",
            b"SIP/2.0 400 Content-Length Required On A Stream\r\nCall-ID: x\r\nContent-Length: 0\r\n\r\n",
            id="a message without length is refused",
        ),
    ],
)
def test_the_shell_answers_what_is_not_for_the_node(sent: bytes, answer: bytes) -> None:
    async def story() -> None:
        seen: list[Input] = []
        streams = Streams(seen.append)
        here = local()
        streams.listen(here)
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(sent)
        async with asyncio.timeout(5):
            assert await reader.readexactly(len(answer)) == answer
        assert not any(isinstance(input, Received) for input in seen)
        writer.close()
        await writer.wait_closed()
        await streams.close()

    asyncio.run(story())


def test_the_side_that_connected_answers_no_ping() -> None:
    async def story() -> None:
        got = bytearray()
        ended = asyncio.Event()

        async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\r\n\r\n" + message())
            while data := await reader.read(1000):
                got.extend(data)
            writer.close()
            await writer.wait_closed()
            ended.set()

        server = await asyncio.start_server(far, "127.0.0.1", 0)
        seen: list[Input] = []
        streams = Streams(seen.append)
        flow = Flow(local(), ("127.0.0.1", server.sockets[0].getsockname()[1]))
        streams.send(Send(message(b"one"), flow))
        await until(lambda: seen)
        streams.send(Send(message(b"two"), flow))
        await until(lambda: got.endswith(b"two"))
        assert bytes(got) == message(b"one") + message(b"two")
        await streams.close()
        await asyncio.wait_for(ended.wait(), 5)
        server.close()
        await server.wait_closed()

    asyncio.run(story())


def test_an_idle_connection_is_closed() -> None:
    async def story() -> None:
        seen: list[Input] = []
        a, b = Streams(seen.append, idle_after=0.05), Streams(lambda _input: None)
        at_b = local()
        b.listen(at_b)
        flow = Flow(local(), ("127.0.0.1", at_b.port))
        a.send(Send(message(), flow))
        await until(lambda: Closed(flow) in seen)
        assert seen == [Closed(flow)]
        await a.close()
        await b.close()

    asyncio.run(story())


def test_more_connections_than_allowed_are_refused() -> None:
    async def story() -> None:
        seen: list[Input] = []
        streams = Streams(seen.append, max_connections=2)
        here = local()
        streams.listen(here)
        ends = [await asyncio.open_connection("127.0.0.1", here.port) for _turn in range(5)]
        for _reader, writer in ends:
            writer.write(message())
        await until(lambda: len(seen) >= 2)
        assert len(streams.flows) == 2
        flow = Flow(local(), ("127.0.0.1", here.port))
        streams.send(Send(message(), flow))
        assert seen[-1] == SendFailed(flow, "2 connections are open already")
        for _reader, writer in ends:
            writer.transport.abort()
        await streams.close()
        await asyncio.sleep(0)

    asyncio.run(story())


def test_one_source_cannot_take_every_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def open_from(host: str, here: Local) -> asyncio.StreamWriter:
        _reader, writer = await asyncio.open_connection("127.0.0.1", here.port, local_addr=(host, 0))
        writer.write(message())
        return writer

    async def story() -> None:
        seen: list[Input] = []
        counts: list[Count] = []
        streams = Streams(seen.append, max_per_source=2, count=counts.append)
        here = local()
        streams.listen(here)
        ends = [await open_from("127.0.0.1", here) for _turn in range(5)]
        await until(lambda: len(counts) == 3)
        ends += [await open_from("127.0.0.2", here)]
        await until(lambda: len(seen) == 3)
        assert len(streams.flows) == 3
        for writer in ends:
            writer.transport.abort()
        await until(lambda: not streams.flows)
        ends += [await open_from("127.0.0.1", here)]
        await until(lambda: streams.flows)
        assert set(counts) == {Count("stream_refused")}
        await streams.close()
        ends[-1].transport.abort()
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING, "sipnemo.shell"):
        asyncio.run(story())
    assert [record.getMessage() for record in caplog.records] == [
        "Connections refused: 1, the last because 2 from 127.0.0.1 are open already"
    ]


@pytest.mark.parametrize("ends", ["reset", "no TLS", "unlistened"])
def test_a_connection_that_is_gone_counts_no_more(ends: str, tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("home.example")

    async def story() -> None:
        tls = Tls(TlsSettings(cert=cert, key=key)) if ends == "no TLS" else None
        streams = Streams(lambda _input: None, max_per_source=1, tls=tls, connect_within=0.2)
        here = local("TLS" if tls else "TCP")
        for _turn in range(3):
            streams.listen(here)
            _reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(message())
            await until(lambda: streams._accepted)
            if ends == "unlistened":
                await until(lambda: streams.flows)
                streams.unlisten(here)
            elif ends == "reset":
                writer.transport.abort()
            await until(lambda: not streams._accepted)
            writer.transport.abort()
        await streams.close()
        await asyncio.sleep(0)

    asyncio.run(story())


def test_connections_of_a_re_created_interface_are_dropped() -> None:
    async def story() -> None:
        seen: list[Input] = []
        a, b = Streams(seen.append), Streams(lambda _input: None)
        at_b = local()
        b.listen(at_b)
        at_a = local()._replace(device="lo")
        a.link_changed(Link("lo", 1, True, ()))
        a.listen(at_a)
        flow = Flow(at_a, ("127.0.0.1", at_b.port))
        a.send(Send(message(), flow))
        await until(lambda: b.flows)
        a.link_changed(Link("lo", 0, False, ()))
        assert seen == [SendFailed(flow, "lo is gone")]
        assert a.open == {at_a}  # the real lo is still there
        await a.close()
        await b.close()

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------------------- TLS


class Authority:
    """A small certificate authority."""

    def __init__(self, place: Path, name: str = "authority") -> None:
        self.place = place
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = str(place / f"{name}.pem")
        self.certificate = self._sign(self.name, self.key.public_key(), [x509.BasicConstraints(True, None)])
        Path(self.file).write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, address: str = "") -> tuple[str, str]:
        """Certificate and key files for a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        if address:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), [x509.SubjectAlternativeName(names)])
        cert, private = self.place / f"{name}.crt", self.place / f"{name}.key"
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(cert), str(private)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, extensions: list[x509.ExtensionType]
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())


@pytest.mark.parametrize(
    ("names", "verify", "trusted", "reason"),
    [
        pytest.param({"127.0.0.1": "home.example"}, True, True, "", id="the right name"),
        pytest.param({}, True, True, "", id="no name known: the chain alone counts"),
        pytest.param({"127.0.0.1": "other.example"}, True, True, "certificate not trusted", id="another name"),
        pytest.param({}, True, False, "certificate not trusted", id="another authority"),
        pytest.param({"127.0.0.1": "other.example"}, False, False, "", id="nothing verified"),
    ],
)
def test_tls(tmp_path: Path, names: dict[str, str], verify: bool, trusted: bool, reason: str) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("home.example")
    ca = authority.file if trusted else Authority(tmp_path, "stranger").file

    async def story() -> None:
        seen_a: list[Input] = []
        seen_b: list[Input] = []
        a = Streams(seen_a.append, tls=Tls(TlsSettings(ca=ca, verify=verify, names=names)))
        b = Streams(seen_b.append, tls=Tls(TlsSettings(cert=cert, key=key)))
        at_b = local("TLS")
        b.listen(at_b)
        flow = Flow(local("TLS"), ("127.0.0.1", at_b.port))
        a.send(Send(message(b"secret"), flow))
        if reason:
            await until(lambda: seen_a)
            assert isinstance(seen_a[0], SendFailed)
            assert seen_a[0].reason.startswith(reason)
        else:
            await until(lambda: seen_b)
            assert isinstance(seen_b[0], Received)
            b.send(Send(message(b"reply"), seen_b[0].flow))
            await until(lambda: seen_a)
            assert seen_a == [Received(message(b"reply"), flow)]
        await a.close()
        await b.close()

    asyncio.run(story())


def test_a_client_that_speaks_no_tls_disturbs_nobody(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("home.example")

    async def story() -> None:
        seen: list[Input] = []
        streams = Streams(seen.append, tls=Tls(TlsSettings(cert=cert, key=key)), connect_within=0.2)
        here = local("TLS")
        streams.listen(here)
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(message())
        silent_reader, silent_writer = await asyncio.open_connection("127.0.0.1", here.port)
        async with asyncio.timeout(5):
            await reader.read()
            await silent_reader.read()
        for end in (writer, silent_writer):
            end.close()
            await end.wait_closed()
        assert seen == []
        assert streams.flows == frozenset()
        await streams.close()

    asyncio.run(story())


def test_old_tls_versions_are_refused(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("home.example")
    server = Tls(TlsSettings(cert=cert, key=key)).server
    assert server is not None
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2


def test_unusable_files_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, _key = authority.issue("home.example")
    _other, foreign = authority.issue("other.example")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nothing")
    for settings, text in [
        (TlsSettings(cert="/nowhere/x.pem"), "/nowhere/x.pem cannot be used: No such file or directory"),
        (TlsSettings(cert=cert, key=foreign), "the key does not belong to the certificate"),
        (TlsSettings(ca=str(garbage)), f"{garbage} cannot be read: not a usable PEM file"),
        (TlsSettings(ca="/nowhere/ca.pem"), "/nowhere/ca.pem cannot be read: No such file or directory"),
    ]:
        with pytest.raises(TlsError, match=text):
            Tls(settings)


def test_listening_on_tls_without_a_certificate_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        streams = Streams(lambda _input: None, tls=Tls(TlsSettings()))
        streams.listen(local("TLS"))
        assert streams.open == frozenset()
        await streams.close()

    asyncio.run(story())
    assert "set cert and key in [tls]" in caplog.text
