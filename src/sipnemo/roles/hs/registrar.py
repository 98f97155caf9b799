"""REGISTER at the home server (RFC 3261 §10.3, RFC 5626 §6): URIs assigned, Priorities kept unique, 200 once durable.

A REGISTER changes one set of bindings, or all of an account's for `*`, in one write; when the store refuses it, the
sets before it are put back and the answer is 500.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from sipnemo.roles.hs.bindings import TABLE, Binding, Record
from sipnemo.roles.hs.contacts import Wanted, asked_seconds, contact_lines, priority, wanted_contacts
from sipnemo.roles.hs.dates import http_date
from sipnemo.roles.node import Count, Notice, Store, Stored
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.ids import Ids
from sipnemo.sip.message import Request, uri_of
from sipnemo.sip.transaction import ServerTransaction
from sipnemo.sip.uri import UriError, equivalent, host_port, is_address, parse, unescape

if TYPE_CHECKING:
    from sipnemo.roles.hs.node import HomeServer

KNOWN_EXTENSIONS: Final = frozenset(("outbound", "path", "gruu"))
Bindings = Mapping[str, Binding]


class Registrar:
    """Takes registrations in."""

    def __init__(self, hs: HomeServer) -> None:
        self._hs: Final = hs
        self._pending: Final[dict[str, int]] = {}
        "Writes under way, by user."

    def register(self, server: ServerTransaction, request: Request, now: float) -> None:
        """Answer a REGISTER for the home domain; raises SipError."""
        hs = self._hs
        wall = hs.wall(now)
        unsupported = [name for name in request.values("require") if name.lower() not in KNOWN_EXTENSIONS]
        if unsupported:
            raise SipError(420, headers=(f"Unsupported: {', '.join(unsupported)}",))
        name = hs.access.registrant(request, wall)
        hs.registered_from(server.flow, wall + hs.settings.max_expires)
        user = _registered_user(request, hs)
        wanted = wanted_contacts(request)
        records = self._records(user, name, wanted)
        changes: list[tuple[Record, Bindings]] = []
        for record in records:
            if wanted is None:
                self._in_order(record.bindings.values(), request)
                after: Bindings = {}
            elif wanted:
                after = self._updated(record, wanted, request, server.flow, wall)
            else:
                after = record.bindings
            if after is not record.bindings or record.user in self._pending:
                changes.append((record, after))
        self._commit(server, records, changes, now)

    # --------------------------------------------------------------------------------------------- whose bindings

    def _records(self, user: str, name: str, wanted: list[Wanted] | None) -> list[Record]:
        """The records that a REGISTER for `user`, sent by `name`, is about."""
        hs = self._hs
        instances = {contact.instance for contact in wanted or ()}
        if user in hs.settings.accounts:
            if name != user:
                raise SipError(403)
            if not instances:
                known = hs.bindings.instances(user)
                return [record for record in known if record.durable or record.user in self._pending]
            return [self._gateway(user, instances)]
        record = hs.bindings.find(user)
        if record is None:
            raise SipError(404)
        if name != record.account:
            raise SipError(403)
        if record.is_gateway and instances - {"", record.instance}:
            raise SipError(403, "This URI is assigned to another instance")
        return [record]

    def _gateway(self, account: str, instances: set[str]) -> Record:
        """The record of the one SIP-NMS a REGISTER comes from, with a URI of its own from now on (RO-2)."""
        hs = self._hs
        if len(instances) != 1 or "" in instances:
            raise SipError(400, "Contact needs one +sip.instance (RFC 5626)")
        instance = instances.pop()
        record = hs.bindings.assigned(account, instance)
        if record is None:
            if len(hs.bindings.instances(account)) >= hs.settings.max_instances:
                raise SipError(403, "Too many instances of this account")
            # The same again should the store be lost: phones have told the URI to their own servers.
            names = Ids(f"{hs.domain.text} {hs.settings.accounts[account]}")
            record = hs.bindings.assign(account, instance, names.token(f"{account} {instance}"))
            hs.log("info", f"{hs.domain.uri(record.user)} is assigned to {account}, instance {instance}")
        return record

    # ------------------------------------------------------------------------------------------------ what changes

    def _updated(self, record: Record, wanted: list[Wanted], request: Request, flow: Flow, wall: float) -> Bindings:
        """The bindings after this REGISTER. Raises SipError, and then nothing has changed."""
        hs = self._hs
        asked = asked_seconds(request)
        after = {key: binding for key, binding in record.bindings.items() if binding.expires_at > wall}
        outbound = record.is_gateway or request.has_token("supported", "outbound")
        direct = request.names.count("via") == 1
        bearer = _bearer(wanted, flow)
        for contact in wanted:
            seconds = contact.expires if contact.expires is not None else asked
            seconds = self._granted(hs.settings.default_expires if seconds is None else seconds)
            reg_id = contact.reg_id if outbound and contact.instance else 0
            if record.is_gateway and seconds and not reg_id:
                raise SipError(400, "Contact needs reg-id (RFC 5626)")
            before = [known for known in after.values() if _same(known, contact, reg_id)]
            if not seconds and record.is_gateway:
                # The old address of a flow is taken back over another one, and may be overtaken by the new address.
                before = [known for known in before if equivalent(parse(known.contact), contact.uri)]
            self._in_order(before, request, contact)
            for known in before:
                del after[known.key]
            if seconds:
                used = self._flow(contact, flow, bool(reg_id), direct) if contact is bearer else None
                if contact is not bearer and len(before) == 1 and before[0].contact == contact.text:
                    used = before[0].flow
                binding = Binding(
                    contact.text,
                    contact.q,
                    wall + seconds,
                    request.call_id,
                    request.cseq,
                    contact.instance,
                    reg_id,
                    used,
                    contact.features,
                )
                after[binding.key] = binding
                if used is not None:
                    hs.reachable(used)
        if len(after) > hs.settings.max_contacts:
            raise SipError(403, "Too many contacts")
        if record.is_gateway:
            self._priorities_differ(after)
        return after

    def _granted(self, seconds: int) -> int:
        settings = self._hs.settings
        if 0 < seconds < min(settings.min_expires, 3600):
            raise SipError(423, headers=(f"Min-Expires: {settings.min_expires}",))
        return min(seconds, settings.max_expires)

    @staticmethod
    def _in_order(known: Iterable[Binding], request: Request, contact: Wanted | None = None) -> None:
        """A REGISTER that was overtaken changes nothing (§10.3 item 7); the same one again, after a crash, may."""
        for binding in known:
            if binding.call_id != request.call_id or binding.cseq < request.cseq:
                continue
            again = contact is not None and binding.cseq == request.cseq and binding.contact == contact.text
            if not again:
                raise SipError(400, "CSeq is not higher than that of the binding")

    def _priorities_differ(self, after: Bindings) -> None:
        """MH-7: a Priority is unique per SIP-NMS."""
        taken: dict[int, Binding] = {}
        for binding in after.values():
            other = taken.setdefault(binding.q, binding)
            if other is not binding:
                q = priority(binding.q)
                why = f"reg-id {binding.reg_id} and reg-id {other.reg_id} cannot both have q={q}"
                raise SipError(400, "Priority is not unique", (f'Warning: 399 {self._hs.domain.text} "{why}"',))

    def _flow(self, contact: Wanted, flow: Flow, outbound: bool, direct: bool) -> Flow | None:
        """Where requests for this Contact go: the flow it came over, unless a proxy sent it (RFC 5626 §6).

        A phone that knows nothing of RFC 5626 is reached the same way when it came over a connection or when its
        Contact is not where its packets come from, as behind a NAT.
        """
        if not direct or self._hs.domain.is_ours(contact.uri):
            return None
        if outbound:
            # A Contact elsewhere, such as another SIP-NMS's URI, was put there by whoever relayed the REGISTER.
            return flow if is_address(host_port(contact.uri)[0]) else None
        host, port = host_port(contact.uri)
        if not is_address(host):
            return None
        return flow if flow.reliable or (host, port) != flow.remote else None

    # --------------------------------------------------------------------------------------------------- durability

    def _commit(
        self, server: ServerTransaction, records: list[Record], changes: list[tuple[Record, Bindings]], now: float
    ) -> None:
        """Make the changes and answer when they are durable."""
        hs = self._hs
        listed = [(record, after) for record, after in changes]
        changed = {record.user for record, _ in changes}
        listed += [(record, record.bindings) for record in records if record.user not in changed]
        if not changes:
            self._confirm(server, listed, now)
            return
        before = [(record, record.bindings) for record, _ in changes]
        for record, after in changes:
            record.bindings = after
            self._pending[record.user] = self._pending.get(record.user, 0) + 1
            self.watch(record)
        for record, old in before:
            if record.is_gateway:
                hs.flows.changed(record, old, now)

        def stored(result: Stored, at: float) -> None:
            for user in changed:
                self._pending[user] -= 1
                if not self._pending[user]:
                    del self._pending[user]
            if not result.error:
                for (record, old), (_, new) in zip(before, changes, strict=True):
                    record.durable = True
                    if old.keys() != new.keys():
                        self._tell(record, old, new, server.request.call_id)
                self._confirm(server, listed, at)
                return
            for (record, old), (_, new) in zip(before, changes, strict=True):
                if record.bindings is new:
                    record.bindings = old
            hs.act(Count("registrations", ("not_stored",)))
            hs.log("error", f"A registration was not stored: {result.error}", server.request.call_id)
            hs.respond(server, 500, at, headers=("Retry-After: 5",))

        hs.act(Store(hs.ticket(stored), TABLE, tuple((record.user, record.row()) for record, _ in changes)))

    def _tell(self, record: Record, old: Bindings, new: Bindings, call_id: str) -> None:
        """Say who came and who went; refreshes are not worth a line."""
        hs = self._hs
        uri = hs.domain.uri(record.user)
        for key in new.keys() - old.keys():
            hs.log("info", f"{uri} is at {new[key].contact} now, Priority {priority(new[key].q)}", call_id)
        for key in old.keys() - new.keys():
            hs.log("info", f"{uri} is at {old[key].contact} no more", call_id)
        hs.act(Notice("registered", {"user": record.user, "contacts": len(new)}))

    def _confirm(self, server: ServerTransaction, listed: list[tuple[Record, Bindings]], now: float) -> None:
        hs = self._hs
        wall = hs.wall(now)
        lines = [f"Date: {http_date(wall)}"]
        uris = []
        for record, bindings in listed:
            lines += contact_lines((known for known in bindings.values() if known.expires_at > wall), wall)
            uris.append(f"<{hs.domain.uri(record.user)}>")
        if uris:
            lines.append(f"P-Associated-URI: {', '.join(uris)}")
        if any(known.reg_id for _, bindings in listed for known in bindings.values()):
            lines.append("Require: outbound")
        lines.append("Supported: outbound")
        hs.act(Count("registrations", ("ok",)))
        hs.respond(server, 200, now, headers=tuple(lines))

    # ------------------------------------------------------------------------------------------------------- expiry

    def watch(self, record: Record) -> None:
        """Notice when the first binding of a record runs out."""
        if record.watched or not record.bindings:
            return
        hs = self._hs
        record.watched = True
        first = min(binding.expires_at for binding in record.bindings.values())
        hs.timers.set(first - hs.environment.wall_clock + hs.settings.grace, lambda now: self._run_out(record, now))

    def _run_out(self, record: Record, now: float) -> None:
        hs = self._hs
        record.watched = False
        limit = hs.wall(now) - hs.settings.grace
        gone = [binding for binding in record.bindings.values() if binding.expires_at <= limit]
        if gone:
            record.bindings = {key: known for key, known in record.bindings.items() if known.expires_at > limit}
            for binding in gone:
                hs.log("info", f"{hs.domain.uri(record.user)}: the registration of {binding.contact} has expired")
            hs.act(Count("registrations_expired", (), float(len(gone))))
            hs.act(Store(hs.ticket(lambda _stored, _now: None), TABLE, ((record.user, record.row()),)))
        self.watch(record)


def _registered_user(request: Request, hs: HomeServer) -> str:
    """The user part of the address-of-record, which must be ours (§10.3 item 5)."""
    try:
        to = parse(uri_of(request.value("to")))
    except UriError:
        raise SipError(400, "Malformed To header") from None
    if not to.is_sip or not to.user or not hs.domain.is_ours(to):
        raise SipError(404)
    return unescape(to.user)


def _bearer(wanted: list[Wanted], flow: Flow) -> Wanted | None:
    """The Contact whose flow a REGISTER came over: of several, the one whose address it came from."""
    lasting = [contact for contact in wanted if contact.expires != 0]
    if len(lasting) > 1:
        for contact in lasting:
            if host_port(contact.uri) == flow.remote:
                return contact
    return lasting[0] if lasting else None


def _same(known: Binding, contact: Wanted, reg_id: int) -> bool:
    """Whether a Contact is about this binding: same flow of the same instance, or the same URI."""
    if known.contact == contact.text:
        return True
    if reg_id and known.reg_id:
        return known.reg_id == reg_id and known.instance == contact.instance
    return equivalent(parse(known.contact), contact.uri)
