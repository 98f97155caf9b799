"""What a peer can do wrong, each kind with the answer it deserves."""

from __future__ import annotations

REASONS = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    302: "Moved Temporarily",
    380: "Alternative Service",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    421: "Extension Required",
    423: "Interval Too Brief",
    439: "First Hop Lacks Outbound Support",
    440: "Max-Breadth Exceeded",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    600: "Busy Everywhere",
    603: "Decline",
}


class SipError(Exception):
    """A request cannot be served; `status` and `reason` are the answer, `headers` go into it."""

    def __init__(self, status: int, reason: str = "", headers: tuple[str, ...] = ()) -> None:
        super().__init__(f"{status} {reason or REASONS.get(status, '')}")
        self.status = status
        self.reason = reason or REASONS.get(status, "Error")
        self.headers = headers
        "Whole header lines, for example 'Retry-After: 5'."


class ParseError(SipError):
    """The octets are not an acceptable SIP message (RFC 3261 §7).

    Of a request, `message` holds what could be read, so that it can still be answered; None when nothing can.
    """

    def __init__(self, reason: str, status: int = 400, message: object = None) -> None:
        super().__init__(status, reason)
        self.message = message
