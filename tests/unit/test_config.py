"""Configuration files: every mistake is found at once, and each message says where, what and what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sipnemo.app.config import Config, ConfigError, SettingError, examine, read
from sipnemo.app.instance import instance_in
from sipnemo.app.settings import hs_settings, nms_settings
from sipnemo.app.toml_lines import find_lines
from sipnemo.roles.hs.settings import HsSettings
from sipnemo.roles.nms.settings import EfaceSettings, IfaceSettings, NmsSettings, TrunkCredentials
from sipnemo.sip.flow import Local

NMS = """\
[nms]
home = "sip:home.example"
account = "fleet7"
password_file = "password"
[iface]
address = "10.7.0.1"
[[eface]]
id = 1
interface = "wwan0"
[[eface]]
id = 2
interface = "sat0"
"""
HS = """\
[hs]
domain = "home.example"
[[account]]
name = "fleet7"
password_file = "password"
"""


def write(directory: Path, text: str, name: str = "test.toml") -> Path:
    (directory / "password").write_text("secret\n")
    (directory / "password").chmod(0o600)
    path = directory / name
    path.write_text(text)
    return path


def problems(directory: Path, text: str) -> list[str]:
    """Every problem as `line: where: what`."""
    try:
        found = tuple(examine(write(directory, text)).problems)
    except ConfigError as error:
        found = error.problems
    return [f"{problem.line}: {problem.where}: {problem.what}" for problem in found]


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def config(directory: Path, text: str) -> Config:
    return read(write(directory, text))


def test_the_smallest_gateway_has_the_defaults_of_the_role(tmp_path: Path) -> None:
    settings = nms_settings(config(tmp_path, NMS), "urn:uuid:1")
    assert settings == NmsSettings(
        home="sip:home.example",
        account="fleet7",
        password="secret",
        instance="urn:uuid:1",
        iface=IfaceSettings(address="10.7.0.1"),
        efaces=(
            EfaceSettings(id=1, priority=1, interface="wwan0"),
            EfaceSettings(id=2, priority=2, interface="sat0"),
        ),
    )


def test_the_smallest_home_server_has_the_defaults_of_the_role(tmp_path: Path) -> None:
    settings = hs_settings(config(tmp_path, HS))
    listen = (Local("UDP", "0.0.0.0", 5060), Local("TCP", "0.0.0.0", 5060))
    assert settings == HsSettings(domain="home.example", listen=listen, accounts={"fleet7": "secret"})


def test_every_value_reaches_the_settings(tmp_path: Path) -> None:
    extra = """
[media]
plane = "userspace"
ports = [20000, 20999]
quarantine_after = 1
learn = false
[policy]
name = "least-load"
urgent = ["+441632960000", "alice@HOME.example"]
resource_priority = ["ets"]
return = "idle"
return_after = 5
[damping]
half_life = 10
suppress = 5
reuse = 2
longest = 100
[probe]
probe_every = 0.2
probe_idle_every = 10
probe_lost = 5
hold_down = 30
[move]
verify_after = 1
settle_after = 4
duplicate = true
pace = 50
share = 25
tries = 3
[[trunk]]
realm = "provider.example"
username = "4711"
password_file = "password"
[limits]
message = 4000
headers = 64
body = 2000
calls = 20
suspend_for = 5
silent_after = 900
"""
    eface = 'interface = "sat0"\npriority = 9\ncapacity = "2 Mbit/s"\ngateway = "192.0.2.1"\nfamilies = ["ipv6"]\n'
    eface += 'port = 5062\ntls_port = 5063\ntransports = ["tcp"]'
    settings = nms_settings(config(tmp_path, changed(NMS, 'interface = "sat0"', eface) + extra), "urn:uuid:1")
    assert settings.efaces[1] == EfaceSettings(
        id=2,
        priority=9,
        interface="sat0",
        capacity=2_000_000,
        gateway="192.0.2.1",
        families=("ipv6",),
        port=5062,
        tls_port=5063,
        transports=("TCP",),
    )
    assert dataclasses.astuple(settings.media) == ("userspace", (20000, 20999), 1.0, False)
    urgent = ("+441632960000", "alice@home.example")
    assert dataclasses.astuple(settings.policy) == ("least-load", urgent, ("ets",), "idle", 5.0)
    assert dataclasses.astuple(settings.damping) == (10.0, 5.0, 2.0, 100.0)
    assert dataclasses.astuple(settings.probe) == (0.2, 10.0, 5, 30.0)
    assert dataclasses.astuple(settings.move) == (1.0, 4.0, True, 50.0, 25.0, 3)
    assert dataclasses.astuple(settings.session) == (20, 5.0, 900.0)
    assert dataclasses.astuple(settings.limits) == (4000, 64, 2000)
    assert settings.trunk == (TrunkCredentials("provider.example", "4711", "secret"),)


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    trunk = '\n[[trunk]]\nrealm = "r"\nusername = "u"\npassword_file = "password"\n'
    assert "secret" not in repr(nms_settings(config(tmp_path, NMS + trunk), "urn:uuid:1"))
    assert "secret" not in repr(hs_settings(config(tmp_path, HS)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "account =", "acount =", "3: [nms] acount: unknown key; did you mean account?", id="misspelt key"
        ),
        pytest.param(
            'account = "fleet7"\n',
            "",
            '1: [nms] account: missing; write account = "fleet7" (The gateway\'s account at the home server)',
            id="missing key",
        ),
        pytest.param("sip:home.example", "http://home", '2: [nms] home: "http://home" is not a SIP URI, for', id="uri"),
        pytest.param("sip:home.example", "sip:a@home", '2: [nms] home: "sip:a@home" has a user; write the', id="user"),
        pytest.param("sip:home.example", "sip:home.example:0", "port 0 is not within 1 to 65535", id="port 0"),
        pytest.param("sip:home.example", "sip:2001:db8::1", "is not a SIP URI", id="IPv6 without brackets"),
        pytest.param('"fleet7"', '"fleet 7"', '3: [nms] account: "fleet 7" is not a user name', id="account"),
        pytest.param('"fleet7"', "7", "3: [nms] account: 7 is not a user name", id="number for text"),
        pytest.param('"password"', '"nowhere"', "nowhere cannot be read (No such file or directory);", id="no file"),
        pytest.param("[iface]", "[ifase]", "5: [ifase]: unknown table; did you mean iface?", id="misspelt table"),
        pytest.param("[iface]", "[[iface]]", "5: [iface]: must be written [iface], not [[iface]]", id="not a list"),
        pytest.param('address = "10.7.0.1"', "", "5: [iface]: needs `interface` or `address`", id="no address"),
        pytest.param(
            '"10.7.0.1"',
            '"10.7.0.1"\ninterface = "lan0"',
            "6: [iface] address: write either `address` or `interface`, not both",
            id="both",
        ),
        pytest.param('"10.7.0.1"', '"10.7.0"', '6: [iface] address: "10.7.0" is not an IP address', id="address"),
        pytest.param('"10.7.0.1"', '"0.0.0.0"', '6: [iface] address: "0.0.0.0" is not the address of one', id="any"),
        pytest.param('"wwan0"', '"a-name-too-long-for-linux"', "9: [[eface]] 1 interface: ", id="interface"),
        pytest.param("[iface]", "intercept = true\n[iface]", "5: [nms] intercept: needs the phones' inter", id="whose"),
        pytest.param("id = 2", "id = 1", "11: [[eface]] 2 id: 1 is an uplink's already ([[eface]] 1)", id="same id"),
        pytest.param("id = 2", "id = 100", "11: [[eface]] 2 id: 100 is not a whole number from 1 to 99", id="id"),
        pytest.param("id = 2", "id = true", "11: [[eface]] 2 id: true is not a whole number", id="true for a number"),
        pytest.param(
            "id = 2",
            "id = 2\npriority = 1",
            "12: [[eface]] 2 priority: 1 is an uplink's already ([[eface]] 1); give each uplink its own; 1 is tried",
            id="same priority",
        ),
        pytest.param('"sat0"', '"wwan0"', '12: [[eface]] 2 interface: "wwan0" is an uplink\'s already', id="same"),
        pytest.param(
            "id = 2",
            'capacity = "2 Mb"\nid = 2',
            '11: [[eface]] 2 capacity: "2 Mb" is not a rate; write for example "2 Mbit/s"',
            id="rate",
        ),
        pytest.param("id = 2", 'capacity = "5 bit/s"\nid = 2', "11: [[eface]] 2 capacity: ", id="no capacity"),
        pytest.param("id = 2", 'transports = []\nid = 2', "11: [[eface]] 2 transports: [] is not a list of", id="none"),
        pytest.param("id = 2", 'transports = ["sctp"]\nid = 2', '"sctp" is not one of "udp", "tcp", "tls"', id="sctp"),
        pytest.param("id = 2", 'transports = ["tls"]\nid = 2', "TLS needs a certificate; write `cert`", id="no cert"),
        pytest.param("id = 2", 'families = ["ipv4", "ipv4"]\nid = 2', "names something twice", id="twice"),
        pytest.param("id = 2", "tls_port = 5060\nid = 2", "is the same as `port`; TCP and TLS need a port", id="ports"),
        pytest.param(
            'interface = "sat0"',
            'address = "192.0.2.7"\ngateway = "2001:db8::1"',
            "13: [[eface]] 2 gateway: is not of the same address family as `address`",
            id="families",
        ),
        pytest.param(
            'interface = "sat0"',
            'address = "192.0.2.7"\nexternal = "2001:db8::1"',
            "13: [[eface]] 2 external: is not of the same address family as `address`",
            id="external",
        ),
        pytest.param(
            "id = 2",
            'nat = "none"\nexternal = "203.0.113.7"\nid = 2',
            "11: [[eface]] 2 nat: says nothing beside `external`",
            id="nat and external",
        ),
        pytest.param("id = 2", 'nat = "stun"\nid = 2', '11: [[eface]] 2 nat: "stun" is not "auto" or', id="nat"),
        pytest.param(
            '"sip:home.example"',
            '"sip:192.0.2.1"\nhome_addresses = ["2001:db8::1"]',
            "3: [nms] home_addresses: lacks 192.0.2.1, the address in `home`",
            id="home_addresses",
        ),
        pytest.param(
            "[iface]",
            'home_addresses = ["home.example"]\n[iface]',
            '5: [nms] home_addresses: "home.example" is not an IP address',
            id="a name as address",
        ),
        pytest.param('"fleet7"', "fleet7", "3: : is not valid TOML: Invalid value, column 11; a text", id="quotes"),
        pytest.param("[nms]", "[nmss]", "0: : has neither [nms] nor [hs]", id="no kind"),
        pytest.param("[iface]", "[hs]\n[iface]", "5: : [nms] and [hs] are two programs; write one file for", id="two"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_gateway_is_explained(tmp_path: Path, old: str, new: str, expected: str) -> None:
    found = problems(tmp_path, changed(NMS, old, new))
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[media]\nplane = 'fast'", '14: [media] plane: "fast" is not "auto" or "kernel" or "userspace"'),
        ("[media]\nports = 'x'", '14: [media] ports: "x" is not a list of the first and the last port'),
        ("[media]\nports = [9000, 8000]", "14: [media] ports: [9000, 8000] is not a range within 1024 to 65535"),
        ("[media]\nports = [9000, 9003]", "14: [media] ports: [9000, 9003] has fewer than 8 ports"),
        ("[media]\nports = [5000, 6000]", "14: [media] ports: contains SIP port 5060 of [iface] port"),
        ("[media]\nlearn = 'yes'", '14: [media] learn: "yes" is not true or false (without quotes)'),
        ("[media]\nquarantine_after = nan", "14: [media] quarantine_after: nan is not a number of seconds"),
        ("[probe]\nprobe_every = '100ms'", '14: [probe] probe_every: "100ms" is not a number of seconds from 0.02'),
        ("[damping]\nreuse = 3", "14: [damping] reuse: must be less than `suppress` (2.5)"),
        ("[probe]\nprobe_every = 3", "13: [probe] probe_idle_every: is shorter than probe_every (3)"),
        ("[policy]\nname = 'least_load'", '14: [policy] name: "least_load" is not an installed policy; did you mean'),
        ("[redirect]\nmode = 'refer'", "13: [redirect]: not available in this version"),
        ("[group]\nname = 'bus'", "13: [group]: not available in this version"),
        ("[advertise]", "13: [advertise]: not available in this version"),
        ("[admin]\nlisten = 'localhost'", '14: [admin] listen: "localhost" is not address:port, unix:/file or'),
        ("[admin]\nlisten = '0.0.0.0:80'", '14: [admin] listen: "0.0.0.0:80" can be reached from other hosts'),
        ("[tls]\nkey = 'password'", "14: [tls] key: is of no use without `cert`"),
        ("[tls]\nverify = false", "14: [tls] verify: servers are believed whatever certificate they show"),
        ("[trunk]\nrealm = 'x'", "13: [[trunk]]: must be written [[trunk]], not [trunk]"),
        ("[[trunk]]\nrealm = 'x'", "13: [[trunk]] username: missing"),
        ("[limits]\nmessage = 10", "14: [limits] message: 10 is not a whole number from 1500 to 65535"),
        ("[nms.more]\nx = 1", "13: [nms] more: unknown key"),
    ],
)
def test_a_mistake_in_an_optional_table_is_explained(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, f"{NMS}{text}\n")
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"home.example"', '"sip:home.example"', '2: [hs] domain: "sip:home.example" is not a domain name'),
        ('"home.example"', '"home.example"\nlisten = "udp:0.0.0.0:5060"', "is not a list of listening points such as"),
        ('"home.example"', '"home.example"\nlisten = ["0.0.0.0:5060"]', "is not transport:address:port; write for"),
        ('"home.example"', '"home.example"\nlisten = ["tls:[::]:5061"]', "3: [hs] listen: TLS needs a certificate"),
        ('"home.example"', '"home.example"\nstore = "redis://h"', "3: [hs] store: a redis store is not available in"),
        ('"home.example"', '"home.example"\nstore = "home.db"', '3: [hs] store: "home.db" is not a store; write'),
        ('"home.example"', '"home.example"\nmin_expires = 700', "1: [hs] default_expires: 600 is not between"),
        ("[[account]]", "[account]", "3: [[account]]: must be written [[account]], not [account]"),
        ('"fleet7"', '"fleet7"\nrealm = "x"', "5: [[account]] realm: unknown key; known here: name, password_file"),
    ],
)
def test_a_mistake_in_a_home_server_is_explained(tmp_path: Path, old: str, new: str, expected: str) -> None:
    found = problems(tmp_path, changed(HS, old, new))
    assert any(expected in problem for problem in found), found


def test_a_gateway_and_a_phone_cannot_share_a_name(tmp_path: Path) -> None:
    user = '[[user]]\nname = "fleet7"\npassword_file = "password"\n'
    assert problems(tmp_path, HS + user) == [
        '7: [[user]] name: "fleet7" is an [[account]] too; a gateway and a phone cannot share a name'
    ]


def test_all_mistakes_come_in_one_report_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = changed(changed(changed(NMS, "account", "acount"), "10.7.0.1", "10.7"), "id = 2", "id = 0")
    assert [found.partition(": ")[0] for found in problems(tmp_path, text)] == ["1", "3", "6", "11"]


@pytest.mark.parametrize("text", [NMS, HS])
def test_the_examples_have_no_mistake(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


def test_a_password_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, NMS)
    (tmp_path / "password").chmod(0o644)
    (warning,) = read(path).warnings
    assert f"chmod o-r {tmp_path / 'password'}" in str(warning)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("", "is empty; write the password into it"), ("a\nb\n", "has several lines"), ("\n", "is empty")],
)
def test_a_password_file_holds_one_line(tmp_path: Path, content: str, expected: str) -> None:
    path = write(tmp_path, NMS)
    (tmp_path / "password").write_text(content)
    with pytest.raises(ConfigError, match=expected):
        read(path)


def test_the_password_may_have_spaces(tmp_path: Path) -> None:
    path = write(tmp_path, NMS)
    (tmp_path / "password").write_text(" pass word \r\n")
    assert nms_settings(read(path), "urn:uuid:1").password == " pass word "


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00", b"=", b"[nms", b'x = """', b"a.b = 1\na = 2"])
def test_what_is_not_toml_is_one_message(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "test.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert len(caught.value.problems) == 1


def test_a_file_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        read(tmp_path / "nms.toml")


def test_the_other_kind_of_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="configures `sipnemo hs`; run: sipnemo hs --config"):
        read(write(tmp_path, HS), "nms")


@pytest.mark.parametrize(
    "wrong", ["nms = 1", "[nms]\n[iface]\neface = 1\n", "[nms]\neface = [1, 2]\niface = []", "hs = []"]
)
def test_values_where_tables_belong_are_reported(tmp_path: Path, wrong: str) -> None:
    assert problems(tmp_path, wrong)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("300 kbit/s", 300_000), ("2 Mbit/s", 2_000_000), ("1.5Mbit/s", 1_500_000), ("1 Gbit/s", 10**9)],
)
def test_rates(tmp_path: Path, text: str, rate: int) -> None:
    settings = nms_settings(config(tmp_path, f'{NMS}capacity = "{text}"\n'), "urn:uuid:1")
    assert settings.efaces[1].capacity == rate


@pytest.mark.parametrize(
    "home",
    ["sip:home.example", "sips:home.example", "sip:203.0.113.10:5060", "sip:[2001:db8::1]", "sip:h;lr"],
)
def test_homes(tmp_path: Path, home: str) -> None:
    assert nms_settings(config(tmp_path, changed(NMS, "sip:home.example", home)), "urn:uuid:1").home == home


@pytest.mark.parametrize(
    ("domain", "expected"),
    [("Home.Example", "home.example"), ("203.0.113.10:5070", "203.0.113.10:5070"), ("2001:db8::1", "[2001:db8::1]")],
)
def test_domains(tmp_path: Path, domain: str, expected: str) -> None:
    assert hs_settings(config(tmp_path, changed(HS, "home.example", domain))).domain == expected


def test_lines_are_found_behind_arrays_comments_and_long_texts() -> None:
    text = (
        'a.b = 1\n[t] # x = 1\nlong = """\nx = 1\n"""\nlist = [\n  1,\n]\n"q" = 1\n[[m]]\nk=1\n[[ m ]]\nk = 2\n[t.s]\n'
    )
    lines = find_lines(text)
    assert lines["a", 0, "b"] == 1
    assert lines["t", 0, "long"] == 3
    assert ("t", 0, "x") not in lines
    assert lines["t", 0, "q"] == 9
    assert (lines["m", 0, "k"], lines["m", 1, "k"]) == (11, 13)
    assert lines["t", 0, "s"] == 14


@pytest.mark.req("MH-1")
def test_a_gateway_keeps_its_instance_for_ever(tmp_path: Path) -> None:
    first = instance_in(str(tmp_path / "state"))
    assert first.startswith("urn:uuid:")
    assert instance_in(str(tmp_path / "state")) == first
    assert instance_in(str(tmp_path / "other")) != first


def test_a_spoilt_instance_is_not_replaced_silently(tmp_path: Path) -> None:
    (tmp_path / "instance").write_text("")
    with pytest.raises(SettingError, match="restore it from a backup, or remove it"):
        instance_in(str(tmp_path))


def test_a_state_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SettingError, match=r"make its directory, writable for the service \(\[nms\] state_dir\)"):
        instance_in(str(tmp_path / "state"))
