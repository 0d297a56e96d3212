#!/usr/bin/env python3
"""GETs at a fixed rate, evenly spaced, whatever the answers do; wrk and h2load send when an answer has come.

open-loop.py CORES PORT PATH RATE CONNECTIONS SECONDS

A request's time runs from the moment it was due, not from when a connection was free for it: waiting behind a slow
answer counts (no "coordinated omission"). One process on each of CORES (0,2-3 is written 0,2,3) with its part of rate
and connections. Requests that are not answered SECONDS + 5 after the first are errors. Prints

RESULT requests µs p50 p99 p99.9 errors
SENDER due sent late-p99 busy      what the sender itself adds: µs that a request which had a free connection was sent
                                   after it was due, and the percentage of its cores that it used
"""
import collections
import ctypes
import gc
import math
import multiprocessing
import os
import re
import select
import socket
import sys
import time

GRACE_S = 5
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
PR_SET_TIMERSLACK = 29


class Link:
    """One keep-alive connection: nothing, or the request it carries."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due, self.idle_since, self.got = None, 0.0, b""

    def receive(self):
        """None while the answer is not complete, then whether it is a good one; OSError if there will be none."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise ConnectionError("closed")
        self.got = self.got + piece if self.got else piece
        head = self.got.find(b"\r\n\r\n")
        if head < 0:
            return None
        length = LENGTH.search(self.got, 0, head + 2)
        if not length:
            raise ConnectionError("an answer without Content-Length")
        if len(self.got) < head + 4 + int(length[1]):
            return None
        good, self.got = self.got.startswith(b"HTTP/1.1 200 "), b""
        return good


def send(core, port, path, rate, connections, seconds, begin, tell):
    """One core's part of the load."""
    os.sched_setaffinity(0, {core})
    # Sleep as exactly as the kernel can: by default it may oversleep 50 µs.
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    clock, epoll = time.monotonic, select.epoll()

    def connected():
        link = Link(port)
        epoll.register(link.socket, select.EPOLLIN)
        links[link.socket.fileno()] = link
        idle.append(link)

    links, idle = {}, collections.deque()
    for _ in range(connections):
        connected()
    times, late, errors, total = [], [], 0, int(rate * seconds)
    sent = 0
    gc.disable()
    used = time.process_time()
    while len(times) + errors < total:
        now = clock()
        if now > begin + seconds + GRACE_S:
            break
        while sent < total and idle and (due := begin + sent / rate) <= now:
            link = idle.popleft()
            link.due = due
            sent += 1
            late.append(now - max(due, link.idle_since))
            try:
                link.socket.send(request)
            except OSError:
                pass  # receive() says so, and counts it
            now = clock()
        # epoll waits in milliseconds, select in microseconds: select for the epoll.
        rest = begin + sent / rate - now if sent < total and idle else begin + seconds + GRACE_S - now
        select.select([epoll], [], [], max(0, rest))
        for number, _ in epoll.poll(0):
            link = links[number]
            try:
                good = link.receive()
            except BlockingIOError:
                continue
            except OSError:
                errors += link.due is not None
                del links[number]
                if link.due is None:
                    idle.remove(link)
                link.socket.close()
                try:
                    connected()
                except OSError:
                    pass  # one connection fewer; the requests that miss it wait, and that is measured
                continue
            if good is None:
                continue
            link.idle_since = clock()
            if good:
                times.append(link.idle_since - link.due)
            else:
                errors += 1
            link.due = None
            idle.append(link)
    ended = clock()
    tell.send((times, late, errors + total - sent + sum(link.due is not None for link in links.values()), total, sent,
               ended - begin, (time.process_time() - used) / max(1e-9, ended - begin)))


def percentile(values, percent):
    """Nearest rank, in µs; values are sorted seconds."""
    return round(1e6 * values[max(0, math.ceil(len(values) * percent / 100) - 1)]) if values else 0


def main():
    if len(sys.argv) != 7:
        raise SystemExit(__doc__)
    cores, port, path = [int(core) for core in sys.argv[1].split(",")], int(sys.argv[2]), sys.argv[3]
    rate, connections, seconds = float(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6])
    begin, parts = time.monotonic() + .3, []
    for at, core in enumerate(cores):
        here, there = multiprocessing.Pipe(False)
        # The processes take turns: together they are as evenly spaced as one.
        mine = (core, port, path, rate / len(cores), max(1, connections // len(cores)), seconds, begin + at / rate)
        process = multiprocessing.Process(target=send, args=(*mine, there), daemon=True)
        process.start()
        there.close()
        parts.append((process, here))
    told = []
    for process, here in parts:
        if not here.poll(seconds + 2 * GRACE_S + 5):
            raise SystemExit("error: a sender does not end")
        try:
            told.append(here.recv())
        except EOFError:
            raise SystemExit("error: a sender failed")
        process.join()
    times, late = sorted(of for part in told for of in part[0]), sorted(of for part in told for of in part[1])
    errors, due, sent = (sum(part[at] for part in told) for at in (2, 3, 4))
    print("RESULT", len(times), round(1e6 * max(part[5] for part in told)), percentile(times, 50), percentile(times, 99),
          percentile(times, 99.9), errors)
    print("SENDER", due, sent, percentile(late, 99), round(100 * max(part[6] for part in told)))


main()
