"""Waiting and waking: threads, sockets, event loops. No rule of a protocol is decided here.

dispatch.py   the one thread per adapter that runs the user's callbacks
waiters.py    how one thread or one task sleeps until it is woken
pending.py    `Pending`: one outcome, any number of waiters
waiting.py    `WaitQueue`: many waiters, many entries, each entry to exactly one of them
alarm.py      a descriptor that can be made readable
channel.py    what the engine serves: a descriptor with interest and a deadline
seats.py      where threads sleep over descriptors
engine.py     the thread that serves channels and timers when nobody else does
sockets.py    addresses, options and source ports of TCP sockets
tcp.py        a TCP connection under a protocol core
tcp_listener.py  a listening socket
status.py     lets another process of the user ask this one
runtime.py    what one adapter has of these, with its lock
"""
