"""What must fit together across keys; every misfit is reported on the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from sipnemo.app.config import Config
from sipnemo.sip.uri import host_port, is_address
from sipnemo.sip.uri import parse as parse_uri


def check(config: Config) -> None:
    """Report every misfit between the values that could be read."""
    match config.schema.command:
        case "nms":
            _interfaces(config)
            _efaces(config)
            _home_addresses(config)
            _intercept(config)
            _media_ports(config)
            _probe(config)
            _policy(config)
            _damping(config)
            _unique(config, "trunk", "realm", "credentials")
            _certificate(config, (("iface", "transports"), ("eface", "transports")))
        case "hs":
            if not config.tables["account"] and not config.tables["user"]:
                config.report("hs", 0, "", "nobody may register; write an [[account]] for each gateway", warning=True)
            _unique(config, "account", "name", "an account")
            _unique(config, "user", "name", "a user")
            _users_and_accounts(config)
            _expiry(config)
            _certificate(config, (("hs", "listen"),))
        case "lab":
            _unique(config, "uplink", "id", "an uplink")
            _unique(config, "uplink", "priority", "an uplink", "give each uplink its own; 1 is tried first")
            _probe(config)
            _policy(config)
    _tls(config)


def _interfaces(config: Config) -> None:
    """Exactly one of `address` and `interface`, on both sides; no interface on both."""
    for table in ("iface", "eface"):
        for index in range(len(config.tables[table])):
            written = [key for key in ("address", "interface") if (table, index, key) in config.written]
            if len(written) == 2:
                config.report(table, index, "address", "write either `address` or `interface`, not both")
            elif not written:
                config.report(table, index, "", "needs `interface` or `address`")
    inside = {row[key] for row in config.tables["iface"] for key in ("address", "interface") if key in row}
    for index, row in enumerate(config.tables["eface"]):
        for key in ("address", "interface"):
            if row.get(key) in inside:
                config.report("eface", index, key, f'"{row[key]}" is the [iface] too; phones and uplinks are apart')


def _damping(config: Config) -> None:
    table = config.table("damping") if config.tables["damping"] else {}
    if "reuse" in table and "suppress" in table and table["reuse"] >= table["suppress"]:
        config.report("damping", 0, "reuse", f"must be less than `suppress` ({table['suppress']:g})")


def _intercept(config: Config) -> None:
    iface = config.tables["iface"][0] if config.tables["iface"] else {}
    if not config.tables["nms"] or not config.table("nms").get("intercept"):
        return
    if ("iface", 0, "interface") not in config.written:
        config.report(
            "nms", 0, "intercept", "needs the phones' interface: write `interface` instead of `address` in [iface]"
        )
    elif not {"UDP", "TCP"} & set(iface.get("transports", ("UDP",))):
        config.report("nms", 0, "intercept", "can take UDP and TCP only; add one of them to `transports` in [iface]")


def _efaces(config: Config) -> None:
    rows = config.tables["eface"]
    _unique(config, "eface", "id", "an uplink")
    ids = [row.get("id") for row in rows]
    for index, row in enumerate(rows):
        if "id" in row and "priority" not in row and row["id"] not in ids[:index]:
            row["priority"] = row["id"]
    _unique(config, "eface", "priority", "an uplink", "give each uplink its own; 1 is tried first")
    _unique(config, "eface", "interface", "an uplink", "one [[eface]] covers all addresses of an interface")
    _unique(config, "eface", "address", "an uplink")
    for index, row in enumerate(rows):
        if "address" in row and "gateway" in row and _version(row["address"]) != _version(row["gateway"]):
            config.report("eface", index, "gateway", "is not of the same address family as `address`")
        if "address" in row and f"ipv{_version(row['address'])}" not in row.get("families", ("ipv4", "ipv6")):
            config.report("eface", index, "families", "excludes the family of `address`; no path is left")
        if "address" in row and "external" in row and _version(row["address"]) != _version(row["external"]):
            config.report("eface", index, "external", "is not of the same address family as `address`")
        if "external" in row and ("eface", index, "nat") in config.written:
            config.report("eface", index, "nat", "says nothing beside `external`, which far ends are told; remove one")


def _home_addresses(config: Config) -> None:
    for nms in config.tables["nms"]:
        if nms.get("home_addresses") and "home" in nms:
            host = host_port(parse_uri(nms["home"]))[0]
            if is_address(host) and host not in nms["home_addresses"]:
                what = f"lacks {host}, the address in `home`; add it, or remove this key"
                config.report("nms", 0, "home_addresses", what)


def _version(address: str) -> int:
    return ip_address(address).version


def _media_ports(config: Config) -> None:
    first, last = config.table("media").get("ports", (0, 0)) if config.tables["media"] else (0, 0)
    for table in ("iface", "eface"):
        for index, row in enumerate(config.tables[table]):
            for key in ("port", "tls_port"):
                if key in row and first <= row[key] <= last:
                    config.report("media", 0, "ports", f"contains SIP port {row[key]} of {_name(table, index)} {key}")
            if row.get("port") == row.get("tls_port") is not None:
                config.report(table, index, "tls_port", "is the same as `port`; TCP and TLS need a port each")


def _name(table: str, index: int) -> str:
    return "[iface]" if table == "iface" else f"[[eface]] {index + 1}"


def _probe(config: Config) -> None:
    for probe in config.tables["probe"]:
        if probe.get("probe_every", 0.0) > probe.get("probe_idle_every", float("inf")):
            what = f"is shorter than probe_every ({probe['probe_every']:g}): idle paths are probed less often, not more"
            config.report("probe", 0, "probe_idle_every", what)


def _policy(config: Config) -> None:
    from sipnemo.app.policies import known, unknown

    for policy in config.tables["policy"]:
        if "name" in policy and policy["name"] not in known():
            config.report("policy", 0, "name", unknown(policy["name"]))


def _users_and_accounts(config: Config) -> None:
    accounts = {row.get("name") for row in config.tables["account"]}
    for index, row in enumerate(config.tables["user"]):
        if "name" in row and row["name"] in accounts:
            what = f'"{row["name"]}" is an [[account]] too; a gateway and a phone cannot share a name'
            config.report("user", index, "name", what)


def _expiry(config: Config) -> None:
    for hs in config.tables["hs"]:
        spans = [hs[key] for key in ("min_expires", "default_expires", "max_expires") if key in hs]
        if len(spans) == 3 and spans != sorted(spans):
            low, usual, high = spans
            what = f"{usual} is not between min_expires ({low}) and max_expires ({high})"
            config.report("hs", 0, "default_expires", what)


def _certificate(config: Config, keys: Iterable[tuple[str, str]]) -> None:
    """Listening on TLS needs a certificate."""
    if ("tls", 0, "cert") in config.written:
        return
    for table, key in keys:
        for index, row in enumerate(config.tables[table]):
            if "TLS" in {getattr(point, "transport", point) for point in row.get(key, ())}:
                config.report(table, index, key, "TLS needs a certificate; write `cert` and `key` under [tls]")


def _tls(config: Config) -> None:
    for tls in config.tables.get("tls", ()):
        if "key" in tls and ("tls", 0, "cert") not in config.written:
            config.report("tls", 0, "key", "is of no use without `cert`")
        if tls.get("verify") is False:
            what = "servers are believed whatever certificate they show; for trials only"
            config.report("tls", 0, "verify", what, warning=True)


def _unique(config: Config, table: str, key: str, noun: str, advice: str = "each must be different") -> None:
    seen: dict[Any, int] = {}
    for index, row in enumerate(config.tables[table]):
        if key not in row:
            continue
        if row[key] in seen:
            value = f'"{row[key]}"' if isinstance(row[key], str) else row[key]
            what = f"{value} is {noun}'s already ([[{table}]] {seen[row[key]] + 1}); {advice}"
            config.report(table, index, key, what)
        else:
            seen[row[key]] = index
