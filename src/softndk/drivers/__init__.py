"""Waiting and waking: threads, sockets, event loops. No rule of a protocol is decided here.

dispatch.py   the one thread per adapter that runs the user's callbacks
waiters.py    how one thread or one task sleeps until it is woken
pending.py    `Pending`: one outcome, any number of waiters
waiting.py    `WaitQueue`: many waiters, many entries, each entry to exactly one of them
alarm.py      a descriptor that can be made readable
engine.py     the thread that serves sockets and timers when nobody else does
tcp.py        TCP connections and listening sockets as the engine's channels
runtime.py    the four above as one adapter has them, with its lock
"""
