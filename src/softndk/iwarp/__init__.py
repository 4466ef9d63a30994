"""The iWARP protocol as a state machine without I/O: octets and requests in, octets and events out.

Responsible for: MPA start-up and framing, DDP and RDMAP towards one peer.
Must not know: sockets, threads, event loops and clocks; time comes in as a number.
"""
