"""Where one connection stands: what start-up, flow and ending share.

Plain values with no rules of their own, but one: the state changes by the table of `qp_state` only.
"""

from softndk.config import IwarpConfig
from softndk.iwarp.events import Event, Finish
from softndk.iwarp.outgoing import Outgoing
from softndk.iwarp.qp_state import State, Step, next_state
from softndk.iwarp.stream import Stream
from softndk.iwarp.time_limits import TimeLimits
from softndk.queues.pair import QueuePair

__all__ = ["OVER", "UP", "Standing"]

OVER = (State.TERMINATE, State.CLOSED, State.ERROR)  # in a tuple they are compared by identity, not hashed
"""Nothing more comes of the connection for the program."""
UP = (State.RTS, State.PEER_CLOSED, State.CLOSING)
"""Established and not at its end."""


class Standing:
    """`name` is for messages. `is_active`: this side asks for the connection. `attempt`: for messages, words on an attempt
    that is not the first. `picks_port`: the source port is the system's choice.
    """

    def __init__(self, name: str, config: IwarpConfig, *, is_active: bool) -> None:
        self.name = name
        self.config = config
        self.is_active = is_active
        self.attempt = ""
        self.picks_port = False
        self.state = State.IDLE
        self.pair: QueuePair | None = None
        self.stream: Stream | None = None
        self.out = Outgoing()
        self.timers = TimeLimits(config)
        self.events: list[Event] = []
        self.finish = Finish.KEEP
        self.peer_fin = False
        self.local_fin = False
        self.disconnect_asked = False

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def is_up(self) -> bool:
        return self.state in UP

    @property
    def is_fenced(self) -> bool:
        """Passive side: no FPDU has come, so none may be sent."""
        stream = self.stream
        return not self.is_active and stream is not None and not stream.frames_in and not stream.held

    def step(self, step: Step) -> None:
        self.state = next_state(self.state, step)

    def tell(self, event: Event) -> None:
        """Something for the program to know, behind what has happened before."""
        self.events.append(event)
