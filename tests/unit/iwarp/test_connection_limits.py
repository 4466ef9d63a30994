"""Time limits of an established connection: messages held back, FPDUs never finished."""

import errno

import pytest

from softndk.config import IwarpConfig
from softndk.iwarp.events import Finish
from softndk.iwarp.flow import FRAMES_PER_READ, READ_FIRST, READ_MOST
from softndk.iwarp.qp_state import State
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from softndk.wire.terminate import Terminate
from tests.pair.established import connected, end_of, raw
from tests.pair.raw_peer import RawPeer, tagged, untagged
from tests.vectors.fpdu_model import fpdu

CANCELLED = Status.CANCELLED
SUCCESS = Status.SUCCESS


class TestHeldBack:
    """A-10: a message without a receive waits `receive_wait_s` for one."""

    config = IwarpConfig(receive_wait_s=5)

    def test_without_a_grace_time_the_stream_ends_at_once(self) -> None:
        peer = raw()
        peer.send(untagged(Opcode.SEND, 1, b"x"))
        assert end_of(peer.side).provider_error_code == 0x21202

    def test_a_receive_posted_in_time(self) -> None:
        pair = connected(self.config)
        pair.a.send(b"one", 1)
        pair.a.send(b"two", 2)
        pair.a.write(b"after", pair.b.base + 1000, pair.b.stag, 3)
        pair.drive()
        assert pair.b.core.holding_back
        assert not pair.b.core.wants_read()
        assert pair.b.memory[1000:1005] == bytes(5)
        pair.advance(4)
        pair.b.receive(0, 64, "r1")
        pair.drive()
        assert pair.b.finished()[1] == [("r1", SUCCESS)]
        assert pair.b.core.holding_back
        pair.advance(4)
        pair.b.receive(64, 64, "r2")
        pair.drive()
        assert pair.b.finished()[1] == [("r2", SUCCESS)]
        assert pair.b.memory[:3] + pair.b.memory[64:67] + pair.b.memory[1000:1005] == b"onetwoafter"
        assert not pair.b.core.holding_back
        assert pair.b.core.next_timeout() is None

    def test_the_time_runs_out(self) -> None:
        pair = connected(self.config)
        pair.a.send(b"one")
        pair.drive()
        pair.advance(4.99)
        assert pair.b.take_events() == []
        pair.advance(0.02)
        error = end_of(pair.b)
        assert error.provider_error_code == 0x21202
        assert pair.a.closed
        assert pair.b.closed
        assert not pair.b_to_a.reset

    def test_a_fault_behind_the_message(self) -> None:
        pair = connected(self.config)
        pair.a.send(b"one")
        pair.a.write(b"x", 0, 0xDEADBE01)
        pair.drive()
        pair.b.receive(0, 64, "r1")
        pair.b.receive(0, 64, "r2")
        pair.drive()
        assert end_of(pair.b).provider_error_code == 0x21100
        assert pair.b.finished()[1] == [("r1", SUCCESS), ("r2", CANCELLED)]

    def test_what_this_side_sends_is_not_held_up(self) -> None:
        pair = connected(self.config)
        pair.a.receive(0, 64, "r")
        pair.a.send(b"waits")
        pair.drive()
        pair.b.send(b"goes on", "s")
        pair.drive()
        assert pair.b.finished()[0] == [("s", SUCCESS)]
        assert pair.a.finished()[1] == [("r", SUCCESS)]

    def test_the_next_held_message_waits_from_the_moment_of_the_receive(self) -> None:
        """Nobody has told the core the time between the last octets and the receive."""
        pair = connected(self.config)
        pair.a.send(b"one")
        pair.a.send(b"two")
        pair.drive()
        pair.now += 3
        pair.b.receive(0, 64, "r1")
        assert pair.b.core.holding_back
        assert pair.b.core.next_timeout() == pair.now + 5

    def test_a_receive_that_is_too_small_begins_the_drain(self) -> None:
        pair = connected(self.config)
        pair.a.send(b"waits")
        pair.drive()
        pair.now += 3
        pair.b.receive(0, 1, "r")
        assert pair.b.core.state is State.TERMINATE
        assert pair.b.core.next_timeout() == pair.now + self.config.terminate_drain_s

    def test_kick_without_a_receive_changes_nothing(self) -> None:
        pair = connected(self.config)
        pair.a.send(b"waits")
        pair.drive()
        pair.b.core.kick(pair.now)
        pair.a.core.kick(pair.now)
        assert pair.b.core.holding_back
        assert pair.b.core.next_timeout() == pair.now + 5

    @pytest.mark.parametrize("end", ["close", "abort"])
    def test_after_the_end_input_is_read_again(self, end: str) -> None:
        """Unread input would turn the close into a reset, which can destroy what was sent last."""
        pair = connected(self.config)
        pair.a.send(bytes(5000))
        pair.drive()
        assert not pair.b.core.wants_read()
        if end == "close":
            pair.b.core.close(pair.now)
        else:
            pair.b.core.abort("flushed", pair.now)
        assert pair.b.core.wants_read()
        pair.drive()
        pair.a.core.close(pair.now)
        pair.drive()
        assert pair.b.closed
        assert not pair.b_to_a.reset


class TestRest:
    """TCP is lost while a message is held back: of what came behind it only a Terminate counts."""

    TERMINATE = untagged(Opcode.TERMINATE, 1, bytes.fromhex("11000000"))

    def held(self) -> RawPeer:
        peer = raw(IwarpConfig(receive_wait_s=5))
        peer.send(untagged(Opcode.SEND, 1, b"held"))
        assert peer.side.core.holding_back
        return peer

    def rest(self, peer: RawPeer, octets: bytes) -> None:
        peer.side.core.receive_rest(memoryview(octets), peer.now)
        peer.side.core.connection_lost(OSError(errno.ECONNRESET, "reset"), peer.now)

    @pytest.mark.parametrize("others", [0, 2])
    def test_a_terminate_is_the_reason(self, others: int) -> None:
        peer = self.held()
        frames = [peer.frame(untagged(Opcode.SEND, 2 + number, b"x")) for number in range(others)]
        self.rest(peer, b"".join([*frames, peer.frame(self.TERMINATE), b"behind"]))
        assert end_of(peer.side).provider_error_code == 0x11100
        assert peer.side.core.finish() is Finish.RESET

    @pytest.mark.parametrize("kind", ["nothing", "cut off", "damaged", "writes"])
    def test_else_it_is_the_loss(self, kind: str) -> None:
        peer = self.held()
        before = bytes(peer.side.memory)
        terminate = peer.frame(self.TERMINATE)
        octets = {
            "nothing": b"",
            "cut off": terminate[:-1],
            "damaged": terminate[:-1] + bytes([terminate[-1] ^ 1]),
            "writes": fpdu_of_a_write(peer),
        }[kind]
        self.rest(peer, octets)
        assert end_of(peer.side).status is Status.CONNECTION_RESET
        assert bytes(peer.side.memory) == before

    def test_only_while_something_is_held_back(self) -> None:
        peer = raw()
        peer.side.core.receive_rest(memoryview(peer.frame(self.TERMINATE)), peer.now)
        peer.side.collect()
        assert peer.side.take_events() == []


def fpdu_of_a_write(peer: RawPeer) -> bytes:
    return fpdu(tagged(Opcode.WRITE, peer.side.stag, peer.side.base, b"late"), position=0, crc=True, markers=False)


class TestStall:
    config = IwarpConfig(stall_timeout_s=30)

    def test_an_fpdu_that_is_never_finished(self) -> None:
        peer = raw(self.config)
        peer.side.receive(0, 64, "r")
        octets = peer.frame(untagged(Opcode.SEND, 1, b"ABCDEFGH"))
        peer.send_octets(octets[:1])
        peer.advance(29)
        peer.send_octets(octets[1:20])
        peer.advance(0.99)
        assert peer.side.core.is_up
        peer.advance(0.01)
        assert end_of(peer.side).status is Status.IO_TIMEOUT
        assert peer.closed is Finish.RESET
        assert peer.side.finished()[1] == [("r", CANCELLED)]

    def test_each_fpdu_has_its_own_time(self) -> None:
        peer = raw(self.config)
        octets = b"".join(peer.frame(tagged(Opcode.WRITE, 1, 0)) for _ in range(4))
        for at in range(0, 80, 20):
            peer.send_octets(octets[at : at + 10])
            peer.advance(29)
            peer.send_octets(octets[at + 10 : at + 20])
            assert peer.side.core.next_timeout() is None
            peer.advance(29)
        assert peer.side.take_events() == []

    def test_the_next_fpdu_begins_in_the_same_chunk(self) -> None:
        peer = raw(self.config)
        octets = b"".join(peer.frame(tagged(Opcode.WRITE, 1, 0)) for _ in range(3))
        peer.send_octets(octets[:10])
        peer.advance(29)
        peer.send_octets(octets[10:30])
        peer.advance(29)
        assert peer.side.take_events() == []
        peer.send_octets(octets[30:])
        assert peer.side.core.next_timeout() is None

    def test_between_fpdus_there_is_no_limit(self) -> None:
        peer = raw(self.config)
        peer.side.receive(0, 64, "r")
        peer.send(untagged(Opcode.SEND, 1, b"head", last=False))
        assert peer.side.core.next_timeout() is None


class TestReadSize:
    """What one turn may cost: FPDUs of a peer that sends many small ones must not keep others waiting for long."""

    @staticmethod
    def flood(peer: RawPeer, octets: int) -> int:
        """The smallest FPDUs there are, delivered as a driver would; returns the most that one delivery held."""
        small = peer.frame(tagged(Opcode.WRITE, 1, 0))
        stream = memoryview(small * (octets // len(small)))
        most = 0
        while stream:
            before = peer.side.core.traffic[0]
            size = peer.side.core.read_size()
            peer.send_octets(bytes(stream[:size]))
            most = max(most, peer.side.core.traffic[0] - before)
            stream = stream[size:]
        return most

    @staticmethod
    def bulk(peer: RawPeer, octets: int) -> None:
        large = peer.frame(tagged(Opcode.WRITE, peer.side.stag, peer.side.base, bytes(1000)))
        stream = memoryview(large * (octets // len(large)))
        while stream:
            size = peer.side.core.read_size()
            peer.send_octets(bytes(stream[:size]))
            stream = stream[size:]

    def test_a_peer_that_nobody_knows_yet_gets_little(self) -> None:
        assert raw().side.core.read_size() == READ_FIRST

    def test_large_fpdus_soon_get_the_most(self) -> None:
        peer = raw()
        self.bulk(peer, 4 * READ_MOST)
        assert peer.side.core.read_size() == READ_MOST

    def test_small_fpdus_never_grow_it(self) -> None:
        peer = raw()
        most = self.flood(peer, 4 * READ_MOST)
        assert most <= READ_FIRST // 20
        assert self.flood(peer, READ_MOST) <= FRAMES_PER_READ

    def test_who_turns_to_small_ones_gets_little_again_after_one_turn(self) -> None:
        peer = raw()
        self.bulk(peer, 4 * READ_MOST)
        self.flood(peer, READ_MOST)
        assert self.flood(peer, READ_MOST) <= FRAMES_PER_READ

    def test_a_short_read_does_not_grow_it(self) -> None:
        peer = raw()
        for _ in range(100):
            peer.send(tagged(Opcode.WRITE, 1, 0))
        assert peer.side.core.read_size() == READ_FIRST


class TestMemory:
    """Row 40 of the error table: out of memory, one stream."""

    def test_input_that_cannot_be_stored_ends_that_stream(self, monkeypatch: pytest.MonkeyPatch) -> None:
        peer = raw()
        peer.side.receive(0, 64, "r")

        def consume(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(peer.side.core._standing.stream, "consume", consume)
        peer.send(untagged(Opcode.SEND, 1, b"x"))
        error = end_of(peer.side)
        assert (error.status, error.provider_error_code) == (Status.CONNECTION_ABORTED, 0x20000)
        assert "memory" in str(error)
        assert peer.side.finished()[1] == [("r", CANCELLED)]
        (ulpdu,) = peer.take()
        assert Terminate.parse(ulpdu[18:]).emit()[:3] == bytes(3)

    def test_output_that_cannot_be_made_ends_that_stream(self, monkeypatch: pytest.MonkeyPatch) -> None:
        peer = raw()
        peer.side.receive(0, 64, "r")
        core = peer.side.core

        def produce(limit: int) -> None:
            raise MemoryError

        monkeypatch.setattr(core._standing.stream, "produce", produce)
        peer.pump()
        assert end_of(peer.side).provider_error_code == 0x20000
        (ulpdu,) = peer.take()
        assert Terminate.parse(ulpdu[18:]).emit()[:3] == bytes(3)
