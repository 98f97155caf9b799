from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sipnemo.nemo.binding_list import BindingEntry
from sipnemo.nemo.egress_list import EgressEntry, EgressList, PathKey, Status
from sipnemo.nemo.session_list import SessionEntry, SessionStatus

ON, OFF = Status.ON, Status.OFF
US, THEM = "urn:uuid:us", "urn:uuid:them"


def path(eface_id: int, host: str = "192.0.2.1", status: Status = ON, host_id: str = US) -> EgressEntry:
    return EgressEntry(host_id, eface_id, (host, 5060), status)


def listed(*entries: EgressEntry) -> EgressList:
    egress = EgressList(US)
    for entry in entries:
        egress.put(entry)
    return egress


@pytest.mark.req("MH-1")
def test_own_and_learnt_entries_live_in_one_list_own_first() -> None:
    egress = listed(path(1, host_id=THEM), path(1), path(2))
    assert [(e.host_id, e.eface_id) for e in egress] == [(US, 1), (US, 2), (THEM, 1)]
    assert len(egress) == 3
    assert egress.hosts == (THEM,)
    assert [e.eface_id for e in egress.own] == [1, 2]
    assert [e.eface_id for e in egress.learnt] == [1]
    assert egress.get(path(1, host_id=THEM).key) == path(1, host_id=THEM)
    assert egress.get(PathKey("urn:uuid:nobody", 1, ("192.0.2.1", 5060))) is None


@pytest.mark.req("MH-5")
def test_two_contacts_of_one_eface_are_two_paths_with_one_load() -> None:
    egress = listed(path(1), path(1, "2001:db8::1"), path(2, "192.0.2.2"))
    assert [e.family for e in egress] == [4, 6, 4]
    assert egress.set_load(1, 140.0)
    assert not egress.set_load(1, 100.0)
    assert [e.load for e in egress] == [100.0, 100.0, 0.0]
    assert [e.contact_text for e in egress][:2] == ["192.0.2.1:5060", "[2001:db8::1]:5060"]


@pytest.mark.req("MH-3")
def test_status_changes_are_news_once() -> None:
    egress = listed(path(1))
    key = path(1).key
    assert egress.set_status(key, OFF)
    assert not egress.set_status(key, OFF)
    assert not egress.set_status(path(9).key, OFF)
    assert [e.is_on for e in egress] == [False]


@pytest.mark.req("MH-14")
def test_the_version_rises_with_what_neighbours_must_hear_of() -> None:
    egress = EgressList(US)
    versions = []
    for change in (
        lambda: egress.put(path(1)),
        lambda: egress.put(path(1)),
        lambda: egress.put(path(1, host_id=THEM)),
        lambda: egress.set_rtt(path(1).key, 0.05),
        lambda: egress.set_load(1, 5.0),
        lambda: egress.set_status(path(1).key, OFF),
        lambda: egress.remove(path(1).key),
        lambda: egress.remove(path(1).key),
    ):
        change()
        versions.append(egress.version)
    assert versions == [1, 1, 1, 1, 2, 3, 4, 4]


@pytest.mark.req("MH-2")
def test_full_state_of_a_neighbour_replaces_its_entries_and_names_the_lost_ones() -> None:
    there = [path(1, host_id=THEM), path(2, host_id=THEM), path(3, host_id=THEM, status=OFF)]
    egress = listed(path(1))
    assert egress.replace_learnt(THEM, there) == ()
    assert egress.replace_learnt(THEM, [replace(there[0], status=OFF), replace(there[2], load=3.0)]) == (
        there[0],
        there[1],
    )
    assert [(e.eface_id, e.is_on) for e in egress.learnt] == [(1, False), (3, False)]
    assert len(egress.forget(THEM)) == 2
    assert egress.forget(THEM) == ()
    assert egress.own == (path(1),)


def test_a_neighbour_speaks_for_itself_only() -> None:
    egress = listed(path(1))
    egress.replace_learnt(THEM, [path(1, status=OFF), path(7, host_id="urn:uuid:third")])
    egress.replace_learnt(US, [path(1, status=OFF)])
    assert list(egress) == [path(1)]


def test_rows_for_operators_are_json() -> None:
    binding = BindingEntry("sip:a@x", "sip:a@10.0.0.1", None, 70.4)
    session = SessionEntry("sip:a@x", "", "sip:b@y", "", SessionStatus.SUCCESS, 1, started_at=10.0)
    assert binding.as_row(10.0)["expires_in"] == 60
    assert binding.as_row(100.0)["expires_in"] == 0
    assert (session.as_row(70.0)["status"], session.as_row(70.0)["seconds"]) == ("SUCCESS", 60)
    assert replace(session, started_at=None).as_row(1.0)["seconds"] is None
    assert json.dumps([path(1).as_row(), binding.as_row(0.0), session.as_row(0.0)])
