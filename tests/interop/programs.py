"""The real programs as a test uses them: Kamailio as the phones' own server, and what is there to run at all."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .hosts import Host, wait_until

Transport = Literal["udp", "tcp", "tls"]
Mode = Literal["proxy", "redirect"]

PACKAGES = {
    "baresip": "baresip-core",
    "kamailio": "kamailio",
    "openssl": "openssl",
    "kamailio-tls": "kamailio-tls-modules",
    "sipp": "sip-tester",
    "nft": "nftables",
    "pjsip": "",
}
"Program, as the marker `programs` names it, and the Debian package it comes in (PJSIP: a wheel that pip brings)."


def kamailio_modules() -> Path | None:
    """Where Kamailio keeps its modules; None when it is not installed."""
    return next((path.parent for path in Path("/usr").glob("lib*/**/kamailio/modules/tm.so")), None)


def missing(names: Iterable[str]) -> list[str]:
    """Which of these programs are not here."""
    absent = []
    for name in names:
        if name == "kamailio-tls":
            modules = kamailio_modules()
            here = modules is not None and (modules / "tls.so").exists()
        elif name == "pjsip":
            here = importlib.util.find_spec("pjsua2") is not None
        else:
            here = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") is not None
        if not here:
            absent.append(name)
    return absent


@dataclass(frozen=True)
class Certificates:
    """One authority and one server certificate, as files; the key is in the certificate's file too (baresip)."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path, addresses: Iterable[str]) -> Certificates:
    """A fresh authority and a certificate for these IP addresses, valid for a day, made with openssl."""
    directory.mkdir(parents=True, exist_ok=True)
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    key, request, certificate = directory / "server.key", directory / "server.csr", directory / "server.pem"
    names = ",".join(f"IP:{address}" for address in addresses)
    extensions = directory / "server.ext"
    extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    signed = ["-CAcreateserial", "-days", "1", "-extfile", extensions, "-out", certificate]
    for arguments in (
        ["req", "-x509", *curve, "-days", "1", "-subj", "/CN=interop authority", "-keyout", ca_key, "-out", ca],
        ["req", *curve, "-subj", "/CN=interop server", "-keyout", key, "-out", request],
        ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, *signed],
    ):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + key.read_text())
    return Certificates(ca, certificate, key)


KAMAILIO = """\
#!KAMAILIO
debug=2
log_stderror=yes
fork=yes
children=2
tcp_children=2
auto_aliases=no
dns=no
rev_dns=no
server_signature=no
tcp_accept_no_cl=no
{listen}
mpath="{modules}/"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "htable.so"
{tls}
modparam("usrloc", "db_mode", 0)
modparam("rr", "enable_full_lr", 1)
modparam("registrar", "max_contacts", 5)
modparam("registrar", "method_filtering", 0)
modparam("htable", "htable", "users=>size=8;autoexpire=0;")
modparam("tm", "fr_timer", 8000)
modparam("tm", "fr_inv_timer", 60000)

event_route[htable:mod-init] {{
{users}
}}

route[AUTHENTICATE] {{
    # a user of ours must prove it; callers from elsewhere may call in
    if (!is_method("REGISTER") && $fd != "{domain}") return;
    if ($sht(users=>$fU) == $null) {{ sl_send_reply("403", "No such user"); exit; }}
    if (!pv_auth_check("{domain}", "$sht(users=>$fU)", "0", "1")) {{ auth_challenge("{domain}", "1"); exit; }}
    if (!is_method("REGISTER")) consume_credentials();
}}

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
        sl_send_reply("404", "Not here"); exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
    t_check_trans();
    route(AUTHENTICATE);
    if (is_method("REGISTER")) {{ save("location"); exit; }}
    remove_hf("Route");  # a phone may name us there
    if ($rd != "{domain}") {{
        if ($fd != "{domain}") {{ sl_send_reply("403", "Relaying denied"); exit; }}
    }} else if ($rU == $null) {{
        sl_send_reply("200", "OK"); exit;
    }} else if (!lookup("location")) {{
        sl_send_reply("404", "Nobody registered"); exit;
    }}
{forward}
    exit;
}}
"""

FORWARD = {
    "proxy": """\
    if (is_method("INVITE|SUBSCRIBE|REFER")) record_route();
    if (!t_relay()) sl_reply_error();""",
    "redirect": """\
    sl_send_reply("302", "Moved Temporarily");""",
}

TLS_PART = """\
loadmodule "tls.so"
modparam("tls", "tls_method", "TLSv1.2+")
modparam("tls", "certificate", "{certificate}")
modparam("tls", "private_key", "{key}")
modparam("tls", "ca_list", "{authority}")
modparam("tls", "verify_certificate", 0)
modparam("tls", "require_certificate", 0)
"""


@dataclass
class Kamailio:
    """A registrar and proxy (or redirect server) with digest; its domain is its address."""

    host: Host
    mode: Mode
    users: Mapping[str, str]
    "Name and password of those who may register."
    transports: tuple[Transport, ...] = ("udp", "tcp")
    certificates: Certificates | None = None
    log: Path = field(init=False)

    @property
    def domain(self) -> str:
        return self.host.address

    def start(self) -> Kamailio:
        """Start it and wait until it listens on every transport."""
        directory = self.host.directory / "kamailio"
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "log"
        file = directory / "kamailio.cfg"
        file.write_text(self._config())
        run: list[str | Path] = ["kamailio", "-DD", "-E", "-e", "-m", "32", "-M", "4", "-f", file, "-Y", directory]
        run += ["-P", directory / "pid", "-w", directory, "-x", "fm", "-X", "fm"]
        process = self.host.start(*run, log=self.log, cwd=directory)

        def up() -> bool:
            assert process.poll() is None, f"kamailio ended:\n{self.log.read_text()[-3000:]}"
            return all(self.host.listens(self.domain, self.port(transport), transport) for transport in self.transports)

        wait_until(up, 10, "Kamailio to listen")
        return self

    def port(self, transport: Transport) -> int:
        return 5061 if transport == "tls" else 5060

    def _config(self) -> str:
        modules = kamailio_modules()
        assert modules, "Kamailio is not installed"
        listen = [f"listen={kind}:{self.domain}:{self.port(kind)}" for kind in self.transports]
        tls = ""
        if "tls" in self.transports:
            assert self.certificates, "TLS needs certificates"
            listen.append("enable_tls=yes")
            tls = TLS_PART.format(
                certificate=self.certificates.certificate,
                key=self.certificates.key,
                authority=self.certificates.authority,
            )
        return KAMAILIO.format(
            listen="\n".join(listen),
            modules=modules,
            tls=tls,
            users="\n".join(f'    $sht(users=>{name}) = "{secret}";' for name, secret in self.users.items()),
            domain=self.domain,
            forward=FORWARD[self.mode],
        )
