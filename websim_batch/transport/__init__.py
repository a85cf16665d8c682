"""HTTP over aiohttp: one answer or one error of our own tree per request; nothing above here has heard of aiohttp.

    send ──> sending ──> lines     small POSTs on kept connections: one write, one llhttp parser, no session
                │        session   all else by aiohttp's ClientSession: GET, large bodies, a proxy
                ├──> gate          the moment a request leaves, and who may call it back until then
                ├──> deadlines     one timer for all requests
                └──> bodies · failures

No redirects, no cookies, no retries: each request is one attempt that the caller counts.
"""

from websim_batch.transport.failures import map_error, reply_of_failure
from websim_batch.transport.sending import Transport, TransportSettings

__all__ = ["Transport", "TransportSettings", "map_error", "reply_of_failure"]
