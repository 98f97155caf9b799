"""A PJSIP phone as a program: JSON commands on stdin, JSON events on stdout, one a line. Driven by pjsip.py.

It runs in the namespace of its host and needs nothing of this project but the wheel of pjsua2.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any

import pjsua2 as pj

SOURCES = {"udp": pj.PJSIP_TRANSPORT_UDP, "tcp": pj.PJSIP_TRANSPORT_TCP, "tls": pj.PJSIP_TRANSPORT_TLS}
POLL = 10
"Milliseconds that PJSIP may wait for its sockets before commands are looked at."


def tell(kind: str, **facts: Any) -> None:
    """One event for the test."""
    os.write(1, json.dumps({"type": kind, **facts}).encode() + b"\n")


class Call(pj.Call):  # type: ignore[misc]
    """One call; its audio is a tone."""

    def onCallState(self, prm: Any) -> None:  # noqa: N802
        info = self.getInfo()
        states = {
            pj.PJSIP_INV_STATE_EARLY: "CALL_RINGING",
            pj.PJSIP_INV_STATE_CONFIRMED: "CALL_ESTABLISHED",
            pj.PJSIP_INV_STATE_DISCONNECTED: "CALL_CLOSED",
        }
        kind = states.get(info.state)
        if kind == "CALL_RINGING" and info.role == pj.PJSIP_ROLE_UAS:
            return
        if kind:
            tell(kind, status=info.lastStatusCode, reason=info.lastReason)

    def onCallMediaState(self, prm: Any) -> None:  # noqa: N802
        info = self.getInfo()
        active = any(item.status == pj.PJSUA_CALL_MEDIA_ACTIVE for item in info.media)
        if active:  # the conference bridge sends nothing to a port that no source is connected to
            Agent.tone.startTransmit(self.getAudioMedia(-1))
        tell("MEDIA", active=active)

    def onCallTsxState(self, prm: Any) -> None:  # noqa: N802
        transaction = prm.e.body.tsxState.tsx
        # The client of an INVITE skips this state when it gets a 2xx (RFC 3261 §17.1.1.2).
        done = transaction.state == pj.PJSIP_TSX_STATE_COMPLETED or (
            transaction.state == pj.PJSIP_TSX_STATE_TERMINATED and transaction.statusCode // 100 == 2
        )
        if transaction.method in ("INVITE", "UPDATE") and done and prm.e.body.tsxState.prevState != transaction.state:
            asked = "by us" if transaction.role == pj.PJSIP_ROLE_UAC else "of us"
            tell("ANSWERED", method=transaction.method, status=transaction.statusCode, asked=asked)


class Account(pj.Account):  # type: ignore[misc]
    """The phone's one account."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer
        self.registered = False
        self.calls: list[Call] = []

    def onRegState(self, prm: Any) -> None:  # noqa: N802
        self.registered = prm.code // 100 == 2 and prm.expiration > 0
        tell("REGISTERED" if self.registered else "NOT_REGISTERED", status=prm.code)

    def onIncomingCall(self, prm: Any) -> None:  # noqa: N802
        call = Call(self, prm.callId)
        self.calls.append(call)
        tell("CALL_INCOMING")
        _answer(call, 200 if self.answer == "auto" else 180)


def _answer(call: Call, status: int) -> None:
    parameters = pj.CallOpParam(True)
    parameters.statusCode = status
    call.answer(parameters)


class Agent:
    """The phone."""

    tone: Any

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.endpoint = endpoint = pj.Endpoint()
        endpoint.libCreate()
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0  # everything happens in `run`: no callback from a strange thread
        config.uaConfig.maxCalls = 8
        config.medConfig.noVad = True
        config.logConfig.level = 5
        config.logConfig.consoleLevel = 0
        config.logConfig.filename = options["log"]
        config.logConfig.msgLogging = 1
        endpoint.libInit(config)
        endpoint.audDevManager().setNullDev()
        for codec in endpoint.codecEnum2():
            endpoint.codecSetPriority(codec.codecId, 255 if codec.codecId.startswith("PCMA") else 0)
        transport = pj.TransportConfig()
        transport.port = 5061 if options["transport"] == "tls" else 5060
        transport.boundAddress = options["address"]
        if options["transport"] == "tls":
            transport.tlsConfig.CaListFile = options["authority"]
            transport.tlsConfig.certFile = options["certificate"]
            transport.tlsConfig.privKeyFile = options["key"]
        kind = SOURCES[options["transport"]]
        endpoint.transportCreate(kind, transport)
        endpoint.libStart()
        Agent.tone = pj.ToneGenerator()
        Agent.tone.createToneGenerator()
        tone = pj.ToneDesc()
        tone.freq1, tone.on_msec, tone.off_msec = 440, 1000, 0
        tones = pj.ToneDescVector()
        tones.append(tone)
        Agent.tone.play(tones, True)
        self.account = Account(options["answer"])
        self.account.create(self._account())

    def _account(self) -> Any:
        options, transport = self.options, self.options["transport"]
        config = pj.AccountConfig()
        config.idUri = f"sip:{options['user']}@{options['domain']}"
        config.regConfig.registrarUri = f"sip:{options['domain']};transport={transport}"
        config.regConfig.timeoutSec = options["expires"]
        config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", options["user"], 0, options["password"]))
        proxy = options["outbound"] or f"sip:{options['domain']}"
        config.sipConfig.proxies.append(f"{proxy};transport={transport};lr")
        config.mediaConfig.transportConfig.port = 20000
        config.mediaConfig.transportConfig.portRange = 900
        config.mediaConfig.transportConfig.boundAddress = options["address"]
        config.mediaConfig.srtpUse = 2 if options["srtp"] else 0
        config.mediaConfig.srtpSecureSignaling = 0
        config.natConfig.contactRewriteUse = 0
        config.natConfig.viaRewriteUse = 0
        config.natConfig.sdpNatRewriteUse = 0
        config.callConfig.prackUse = 2 if options["prack"] == "required" else 1 if options["prack"] else 0
        config.callConfig.timerUse = 1
        return config

    def run(self) -> None:
        """Until stdin ends or says so."""
        tell("READY")
        pending = b""
        while True:
            self.endpoint.libHandleEvents(POLL)
            if not select.select([0], [], [], 0)[0]:
                continue
            data = os.read(0, 65536)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                words = json.loads(line)
                if words["do"] == "quit":
                    self.sign_off()
                    return
                try:
                    self.command(words)
                    tell("OK", token=words["token"])
                except pj.Error as error:
                    tell("OK", token=words["token"], error=error.reason)

    def sign_off(self) -> None:
        """End what goes on, and take the contact back, so that the next phone of this name does not ring twice."""
        self.endpoint.hangupAllCalls()
        if self.account.registered:
            self.account.setRegistration(False)
            end_at = time.monotonic() + 3
            while self.account.registered and time.monotonic() < end_at:
                self.endpoint.libHandleEvents(POLL)

    def command(self, words: dict[str, Any]) -> None:
        """What a person would do."""
        calls = [call for call in self.account.calls if call.isActive()]
        parameters = pj.CallOpParam(True)
        match words["do"]:
            case "dial":
                call = Call(self.account)
                self.account.calls.append(call)
                call.makeCall(words["uri"], parameters)
            case "answer":
                _answer(calls[-1], words["status"])
            case "hang_up":
                for call in calls:
                    call.hangup(pj.CallOpParam())
            case "hold":
                calls[-1].setHold(pj.CallOpParam(True))
            case "resume":
                parameters.opt.flag = pj.PJSUA_CALL_UNHOLD
                calls[-1].reinvite(parameters)
            case "reinvite":
                calls[-1].reinvite(parameters)
            case "update":
                calls[-1].update(parameters)


def main() -> None:
    """Options as JSON in the first argument."""
    agent = Agent(json.loads(sys.argv[1]))
    try:
        agent.run()
    finally:
        agent.endpoint.libDestroy(pj.PJSUA_DESTROY_NO_TX_MSG)
        os._exit(0)  # Python would take the calls down after the library they belong to


if __name__ == "__main__":
    main()
