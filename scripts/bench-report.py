#!/usr/bin/env python3
"""Statistics for the bench scripts.

bench-report.py cpu PID                    CPU time in microseconds of PID, its threads and all its descendants
bench-report.py cpu PID THREAD             of the threads of that name alone
bench-report.py compare FILE [REFERENCE [DIGITS]]   the table of the bench scripts (Markdown); ratios to REFERENCE
                                           (nginx) in the same round, with 2 DIGITS
bench-report.py paired FILE REFERENCE      where the medians of those ratios are with 95 % certainty
bench-report.py self-test                  checks this script
"""
import math
import os
import statistics
import sys

HEADINGS = ("scenario", "proxy", "CPU µs/req", "min–max", "÷ {reference}", "req/s", "min–max", "p50 µs", "p99 µs", "errors")


def cpu_us(root):
    """utime + stime of a process tree from /proc; ended and reaped children count as cutime + cstime."""
    tick_us = 1_000_000 / os.sysconf("SC_CLK_TCK")
    stats = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            stats[int(name)] = (int(fields[1]), sum(int(field) for field in fields[11:15]))
    if root not in stats:
        raise SystemExit(f"error: process {root} is gone")
    tree, grew = {root}, True
    while grew:
        more = {pid for pid, (parent, _) in stats.items() if parent in tree} - tree
        tree |= more
        grew = bool(more)
    return round(sum(precise_us(pid, stats[pid][1] * tick_us) for pid in tree))


def precise_us(pid, coarse, name=None):
    """The scheduler's own nanoseconds over all threads (of that name) when the kernel offers them, else the ticks."""
    try:
        total = 0
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as file:
                if name and file.read().rstrip("\n") != name:
                    continue
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="utf-8") as file:
                total += int(file.read().split()[0])
        return total / 1000 if total else coarse
    except (OSError, ValueError):
        return coarse


def read(lines):
    """(scenario, proxy) -> list of rounds; each a dict."""
    rows = {}
    for line in lines:
        scenario, number, proxy, before, after, result = line.rstrip("\n").split("\t")
        requests, duration, p50, p99, errors = (int(text) for text in result.split())
        rows.setdefault((scenario, proxy), []).append({
            "round": int(number),
            "cpu": (int(after) - int(before)) / max(requests, 1),
            "rate": requests / (duration / 1e6),
            "p50": p50, "p99": p99, "errors": errors,
        })
    return rows


def spread(values):
    return min(values), max(values)


def verdict(rows, scenario, proxies, key="cpu"):
    """Who used least, unless the spreads overlap: then nobody."""
    spreads = {proxy: spread([row[key] for row in rows[scenario, proxy]]) for proxy in proxies}
    if len(spreads) < 2:
        return f"{scenario}: nothing to compare with."
    order = sorted(spreads, key=lambda proxy: statistics.median(row[key] for row in rows[scenario, proxy]))
    best, second = order[0], order[1]
    overlapping = [proxy for proxy in order[1:] if spreads[proxy][0] <= spreads[best][1]]
    if overlapping:
        return f"{scenario}: no winner; the spreads of {best} and {', '.join(overlapping)} overlap."
    return f"{scenario}: {best} used the least CPU per request, next {second}."


def table(rows, reference="nginx", digits="2"):
    scenarios = list(dict.fromkeys(scenario for scenario, _ in rows))
    lines = ["| " + " | ".join(HEADINGS).format(reference=reference) + " |", "|---" * len(HEADINGS) + "|"]
    verdicts = []
    for scenario in scenarios:
        proxies = sorted(proxy for label, proxy in rows if label == scenario)
        for proxy in proxies:
            mine = rows[scenario, proxy]
            ratios = ratios_of(rows, scenario, proxy, reference)
            middle = {key: statistics.median(row[key] for row in mine) for key in ("cpu", "rate", "p50", "p99")}
            low, high = spread([row["cpu"] for row in mine])
            slow, fast = spread([row["rate"] for row in mine])
            ratio = [f"{value:.{digits}f}" for value in (statistics.median(ratios), *spread(ratios))] if ratios else []
            ratio = f"{ratio[0]} ({ratio[1]}–{ratio[2]})" if ratio else "–"
            lines.append(f"| {scenario} | {proxy} | {middle['cpu']:.1f} | {low:.1f}–{high:.1f} | {ratio} "
                         f"| {middle['rate']:.0f} | {slow:.0f}–{fast:.0f} | {middle['p50']:.0f} | {middle['p99']:.0f} "
                         f"| {sum(row['errors'] for row in mine)} |")
        failing = [proxy for proxy in proxies if any(row["errors"] for row in rows[scenario, proxy])]
        if failing:
            verdicts.append(f"- {scenario}: INVALID, errors at {', '.join(failing)}.")
        else:
            verdicts.append("- " + verdict(rows, scenario, proxies))
    return "\n".join(lines + [""] + verdicts)


def ratios_of(rows, scenario, proxy, reference):
    """CPU per request over that of the reference in the same round."""
    known = {row["round"]: row["cpu"] for row in rows.get((scenario, reference), [])}
    return [row["cpu"] / known[row["round"]] for row in rows[scenario, proxy] if known.get(row["round"])]


def median_bounds(values):
    """Values between which the median of what they are drawn from is, 19 times in 20, whatever their distribution: so
    many of them are on either side of it as heads fall in as many throws."""
    values, n, tail, k = sorted(values), len(values), 0, 0
    while k < n and tail + math.comb(n, k) / 2**n <= .025:
        tail += math.comb(n, k) / 2**n
        k += 1
    return (values[k - 1], values[n - k]) if k else None


def paired(rows, reference):
    lines = []
    for scenario, proxy in rows:
        if proxy != reference:
            ratios = ratios_of(rows, scenario, proxy, reference)
            bounds = median_bounds(ratios)
            where = f"between {bounds[0]:.3f} and {bounds[1]:.3f} (95 %)" if bounds else "anywhere: too few rounds"
            lines.append(f"- {scenario}: {proxy} ÷ {reference} over {len(ratios)} rounds: "
                         f"median {statistics.median(ratios):.3f}, {where}")
    return "\n".join(lines)


def self_test():
    def line(number, proxy, cpu, errors=0):
        return f"128b\t{number}\t{proxy}\t0\t{cpu}\t1000 1000000 10 20 {errors}\n"
    apart = read([line(1, "nginx", 20000), line(2, "nginx", 22000), line(1, "haproxy", 30000), line(2, "haproxy", 33000)])
    assert "nginx used the least" in table(apart), table(apart)
    assert "1.50 (1.50–1.50)" in table(apart), table(apart)
    assert "| ÷ haproxy |" in table(apart, "haproxy") and "0.67 (0.67–0.67)" in table(apart, "haproxy")
    near = read([line(1, "nginx", 20000), line(2, "nginx", 31000), line(1, "haproxy", 30000), line(2, "haproxy", 33000)])
    assert "no winner" in table(near), table(near)
    assert "INVALID, errors at nginx" in table(read([line(1, "nginx", 1, 7), line(1, "haproxy", 9)]))
    assert median_bounds(range(5)) is None and median_bounds(range(10)) == (1, 8) and median_bounds(range(40)) == (13, 26)
    assert "median 1.500, anywhere" in paired(apart, "nginx"), paired(apart, "nginx")
    assert cpu_us(os.getpid()) > 0
    assert precise_us(os.getpid(), 0, "no thread of ours") == 0
    print("ok")


def main():
    match sys.argv[1:]:
        case ["cpu", pid]:
            print(cpu_us(int(pid)))
        case ["cpu", pid, thread]:
            print(round(precise_us(int(pid), 0, thread)))
        case ["compare", path, *how]:
            with open(path, encoding="utf-8") as file:
                print(table(read(file), *how))
        case ["paired", path, reference]:
            with open(path, encoding="utf-8") as file:
                print(paired(read(file), reference))
        case ["self-test"]:
            self_test()
        case _:
            raise SystemExit(__doc__)


main()
