#!/usr/bin/env python3
"""Statistics for the bench scripts.

bench-report.py cpu PID                    CPU time in microseconds of PID, its threads and all its descendants
bench-report.py cpu PID THREAD             of the threads of that name alone
bench-report.py compare FILE [REFERENCE [DIGITS]]   the table of the bench scripts (Markdown); ratios to REFERENCE
                                           (nginx) in the same round, with 2 DIGITS
bench-report.py memory PID                 what PID and its descendants have in memory, in KiB; a page that several share
                                           counts once, where the kernel tells
bench-report.py scaling FILE EXTRA SVG NOTE          the tables of bench-scaling.sh, and its curves as SVG
bench-report.py paired FILE REFERENCE      where the medians of those ratios are with 95 % certainty
bench-report.py self-test                  checks this script
"""
import math
import os
import re
import statistics
import sys
import xml.dom.minidom

HEADINGS = ("scenario", "proxy", "CPU µs/req", "min–max", "÷ {reference}", "req/s", "min–max", "p50 µs", "p99 µs", "errors")


def cpu_us(root):
    """utime + stime of a process tree from /proc; ended and reaped children count as cutime + cstime."""
    tick_us = 1_000_000 / os.sysconf("SC_CLK_TCK")
    return round(sum(precise_us(pid, ticks * tick_us) for pid, ticks in tree_of(root).items()))


def memory_kib(root):
    return sum(map(resident_kib, tree_of(root)))


def resident_kib(pid):
    for name, field in ("smaps_rollup", "Pss"), ("status", "VmRSS"):
        try:
            with open(f"/proc/{pid}/{name}", encoding="utf-8") as file:
                return int(re.search(rf"^{field}:\s*(\d+) kB", file.read(), re.M)[1])
        except (OSError, TypeError):
            continue
    return 0


def tree_of(root):
    """A process and its descendants, with the ticks they used."""
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
    return {pid: stats[pid][1] for pid in tree}


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
        requests, duration, p50, p99, p999, errors = (int(text) for text in result.split())
        rows.setdefault((scenario, proxy), []).append({
            "round": int(number),
            "cpu": (int(after) - int(before)) / max(requests, 1),
            "rate": requests / (duration / 1e6),
            "gap": duration / max(requests, 1),
            "p50": p50, "p99": p99, "p999": p999, "errors": errors,
        })
    return rows


def spread(values):
    return min(values), max(values)


def verdict(rows, scenario, proxies, key="cpu", says="used the least CPU per request", whereof=""):
    """Who has least of it, unless the spreads overlap: then nobody."""
    spreads = {proxy: spread([row[key] for row in rows[scenario, proxy]]) for proxy in proxies}
    if len(spreads) < 2:
        return f"{scenario}: nothing to compare with."
    order = sorted(spreads, key=lambda proxy: statistics.median(row[key] for row in rows[scenario, proxy]))
    best, second = order[0], order[1]
    overlapping = [proxy for proxy in order[1:] if spreads[proxy][0] <= spreads[best][1]]
    if overlapping:
        return f"{scenario}: no winner{whereof}; the spreads of {best} and {', '.join(overlapping)} overlap."
    return f"{scenario}: {best} {says}, next {second}."


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


SCALING_HEADINGS = ("loop", "proxy", "cores", "req/s", "min–max", "× fewest cores", "of ideal", "p50 µs", "p99 µs", "min–max",
                    "p99.9 µs", "CPU µs/req", "min–max", "MiB", "errors")
LEAST_CPU = ("cpu", "used the least CPU per request", " in CPU per request")
SCALING_VERDICTS = {"closed": (("gap", "answered the most requests a second", " in requests a second"), LEAST_CPU),
                    "open": (("p99", "had the lowest p99", " in p99"), LEAST_CPU)}


def scaling(rows, extra, note):
    """Tables and curves of `proxy@cores`, in a closed and an open loop. Each line of extra: loop, round, proxy@cores,
    KiB, and of the open loop's sender: due, sent, late-p99 in µs, busy in percent."""
    for line in extra:
        loop, number, name, kib, *sender = line.rstrip("\n").split("\t")
        row = next(row for row in rows[loop, name] if row["round"] == int(number))
        row["mib"], row["sender"] = int(kib) / 1024, [int(word) for word in " ".join(sender).split()]
    points = {}  # (loop, proxy) -> cores -> rounds
    for (loop, name), rounds in rows.items():
        proxy, _, cores = name.rpartition("@")
        points.setdefault((loop, proxy), {})[int(cores)] = rounds
    points = dict(sorted(points.items()))
    lines = ["| " + " | ".join(SCALING_HEADINGS) + " |", "|---" * len(SCALING_HEADINGS) + "|"]
    says = []
    for (loop, proxy), by_cores in points.items():
        fewest = min(by_cores)
        for cores, rounds in sorted(by_cores.items()):
            base = {row["round"]: row["rate"] for row in by_cores[fewest]}
            times = [row["rate"] / base[row["round"]] for row in rounds if base[row["round"]]]
            ratio = ideal = "–"
            if loop == "closed" and times:
                ratio = f"{statistics.median(times):.2f} ({min(times):.2f}–{max(times):.2f})"
                ideal = f"{100 * statistics.median(times) * fewest / cores:.0f} %"
            low_high = {key: "{:.{digits}f}–{:.{digits}f}".format(*spread([row[key] for row in rounds]), digits=int(key == "cpu"))
                        for key in ("rate", "p99", "cpu")}
            middle = {key: statistics.median(row[key] for row in rounds)
                      for key in ("rate", "p50", "p99", "p999", "cpu", "mib")}
            lines.append(f"| {loop} | {proxy} | {cores} | {middle['rate']:.0f} | {low_high['rate']} | {ratio} | {ideal} "
                         f"| {middle['p50']:.0f} | {middle['p99']:.0f} | {low_high['p99']} | {middle['p999']:.0f} "
                         f"| {middle['cpu']:.1f} | {low_high['cpu']} | {middle['mib']:.0f} "
                         f"| {sum(row['errors'] for row in rounds)} |")
            says += sender_faults(f"{loop} loop, {proxy} on {cores_text(cores)}", rounds)
    for loop in dict.fromkeys(loop for loop, _ in points):
        for cores in sorted({cores for (of, _), by_cores in points.items() if of == loop for cores in by_cores}):
            label = f"{loop} loop, {cores_text(cores)}"
            there = {(label, proxy): by_cores[cores] for (of, proxy), by_cores in points.items()
                     if of == loop and cores in by_cores}
            failing = [proxy for (_, proxy), rounds in there.items() if any(row["errors"] for row in rounds)]
            if failing:
                says.append(f"- {label}: INVALID, errors at {', '.join(failing)}.")
            elif len(there) > 1:
                is_blurred = any(sender_faults(label, rounds) for rounds in there.values())
                says += [f"- {label}: no winner in p99; the sender's own lateness is in it." if what[0] == "p99" and is_blurred
                         else "- " + verdict(there, label, [proxy for _, proxy in there], *what)
                         for what in SCALING_VERDICTS[loop]]
    return "\n".join(lines + [""] + says), curves_svg(points, note)


def cores_text(cores):
    return "1 core" if cores == 1 else f"{cores} cores"


def sender_faults(label, rounds):
    """What the open loop's sender says against its own figures."""
    senders = [row["sender"] for row in rounds if row.get("sender")]
    if not senders:
        return []
    late, busy = statistics.median(of[2] for of in senders), max(of[3] for of in senders)
    faults = []
    if any(sent < due for due, sent, _, _ in senders):
        faults.append("not every request that was due was sent")
    if busy >= 80:
        faults.append(f"the sender used up to {busy} % of its cores")
    if late > statistics.median(row["p99"] for row in rounds) / 4:
        faults.append(f"the sender itself was late by {late:.0f} µs (p99)")
    return [f"- {label}: {'; '.join(faults)}: these times are partly not the proxy's."] if faults else []


MARKS = ("M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", "M-4,-4h8v8h-8z", "M0,-5l5,5l-5,5l-5,-5z", "M0,-5l5,9h-10z", "M-5,-4h10l-5,9z")
STYLE = """
svg { font: 12px system-ui, sans-serif; background: #fff; color: #1f2328 }
text { fill: currentColor } .title { font-weight: 600; font-size: 13px } .note { fill: #9a3412 }
.grid { stroke: #d1d9e0 } .line { fill: none; stroke-width: 2 } .ideal { stroke-width: 1; opacity: .75 }
.s0 { color: #0757b5 } .s1 { color: #b04700 } .s2 { color: #1a7032 } .s3 { color: #7340c8 } .s4 { color: #a8215f }
.line, .whisker { stroke: currentColor } .mark { fill: currentColor }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; color: #e6edf3 } .grid { stroke: #30363d } .note { fill: #ffa657 }
.s0 { color: #6cb6ff } .s1 { color: #f69d50 } .s2 { color: #57c46a } .s3 { color: #c297ff } .s4 { color: #ff8fc0 }
}"""
WIDTH, PLOT_WIDTH, PLOT_HEIGHT, LEFT, TOP = 960, 400, 190, 60, 34


def curves_svg(points, note):
    """Four panels: what was answered next to the ideal, times at a fixed rate, CPU, memory."""
    proxies = list(dict.fromkeys(proxy for _, proxy in points))
    all_cores = sorted({cores for by_cores in points.values() for cores in by_cores})

    def curve(loop, proxy, key):
        """(cores, median, lowest, highest) each."""
        return [(cores, statistics.median(row[key] for row in rounds), *spread([row[key] for row in rounds]))
                for cores, rounds in sorted(points.get((loop, proxy), {}).items())]

    def curves(loop, keys):
        return [(proxies.index(proxy), dash, curve(loop, proxy, key)) for proxy in proxies for key, dash in keys.items()]

    ideals = []
    for proxy in proxies:
        for fewest, rate, _, _ in curve("closed", proxy, "rate")[:1]:
            ideals.append((proxies.index(proxy), "ideal", [(cores, rate * cores / fewest) for cores in all_cores]))
    loops = dict.fromkeys(loop for loop, _ in points)
    timed = "open" if "open" in loops else "closed"
    panels = [
        ("requests a second, closed loop; ideal: thin, dashed", ideals + curves("closed", {"rate": ""}), False),
        (f"µs, {timed} loop: p50 dotted, p99 solid, p99.9 dashed",
         curves(timed, {"p50": "1 4", "p99": "", "p999": "6 4"}), True),
        ("CPU µs per request, closed loop", curves("closed", {"cpu": ""}), False),
        ("memory, MiB, after the closed loop", curves("closed", {"mib": ""}), False),
    ]
    errors = sum(row["errors"] for by_cores in points.values() for rounds in by_cores.values() for row in rounds)
    parts = ['<text class="title" x="16" y="24">Worker cores: throughput, latency, CPU, memory</text>',
             f'<text x="16" y="44">medians; bars from the lowest to the highest round; {errors} errors in all</text>']
    notes = [line for line in note.splitlines() if line]
    parts += [f'<text class="note" x="16" y="{62 + 16 * at}">{escaped(line)}</text>' for at, line in enumerate(notes)]
    for at, proxy in enumerate(proxies):
        x = WIDTH - 110 * (len(proxies) - at)
        parts.append(f'<g class="s{at % 5}" transform="translate({x},20)"><path class="mark" d="{MARKS[at % 5]}"/>'
                     f'<text x="10" y="4">{escaped(proxy)}</text></g>')
    head = 60 + 16 * len(notes)
    for at, panel in enumerate(panels):
        parts += panel_svg(16 + at % 2 * 475, head + at // 2 * (PLOT_HEIGHT + 80), all_cores, len(proxies), *panel)
    height = head + 2 * (PLOT_HEIGHT + 80)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="scaling curves">'
            f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n")


def panel_svg(left, top, all_cores, proxies, title, lines, is_log):
    values = [value for _, _, line in lines for _, *of in line for value in of]
    if not values:
        return []
    ticks = log_ticks(min(values), max(values)) if is_log else even_ticks(max(values))
    scale = (lambda value: math.log(max(value, ticks[0]))) if is_log else float
    low, high = scale(ticks[0]), scale(ticks[-1])
    left, top, first, last = left + LEFT - 16, top + TOP, all_cores[0], all_cores[-1]
    plot_x = lambda cores: left + 24 + (PLOT_WIDTH - 48) * ((cores - first) / (last - first) if last > first else .5)
    plot_y = lambda value: top + PLOT_HEIGHT * (1 - (scale(value) - low) / (high - low))
    parts = [f'<text class="title" x="{left}" y="{top - 14}">{escaped(title)}</text>']
    for tick in ticks:
        y = plot_y(tick)
        parts.append(f'<path class="grid" d="M{left},{y:.1f}h{PLOT_WIDTH}"/>'
                     f'<text text-anchor="end" x="{left - 6}" y="{y + 4:.1f}">{short(tick)}</text>')
    free = 0
    for cores in all_cores:
        if plot_x(cores) >= free:  # else its number would be on the one before
            free = plot_x(cores) + 20
            parts.append(f'<text text-anchor="middle" x="{plot_x(cores):.1f}" y="{top + PLOT_HEIGHT + 18}">{cores}</text>')
    parts.append(f'<text text-anchor="middle" x="{left + PLOT_WIDTH / 2}" y="{top + PLOT_HEIGHT + 34}">worker cores</text>')
    for at, dash, line in lines:
        # Side by side, that bars of the same number of cores do not hide each other.
        shift = 7 * (at - (proxies - 1) / 2)
        path = "M" + "L".join(f"{plot_x(cores) + shift:.1f},{plot_y(middle):.1f}" for cores, middle, *_ in line)
        how = 'class="line ideal" stroke-dasharray="3 3"' if dash == "ideal" else f'class="line" stroke-dasharray="{dash}"'
        parts.append(f'<g class="s{at % 5}"><path {how} d="{path}"/>')
        for cores, middle, *bar in line if dash != "ideal" else []:
            x = plot_x(cores) + shift
            parts.append(f'<path class="whisker" d="M{x:.1f},{plot_y(bar[0]):.1f}V{plot_y(bar[1]):.1f}"/>'
                         f'<path class="mark" transform="translate({x:.1f},{plot_y(middle):.1f})" d="{MARKS[at % 5]}"/>')
        parts.append("</g>")
    return parts


def even_ticks(highest):
    """From 0 in steps of 1, 2 or 5 times a power of ten to where nothing is higher: five steps at most."""
    power = 10 ** math.floor(math.log10(max(highest, 1e-9) / 5))
    step = next(step * power for step in (1, 2, 5, 10) if step * power * 5 >= highest)
    return [step * at for at in range(max(1, math.ceil(highest / step)) + 1)]


def log_ticks(lowest, highest):
    """Powers of ten, and 2 and 5 times such, around what is there."""
    all_ticks = [step * 10**power for power in range(0, 9) for step in (1, 2, 5)]
    below = max((tick for tick in all_ticks if tick <= lowest), default=1)
    above = min((tick for tick in all_ticks if tick >= highest and tick > below), default=10**9)
    ticks = [tick for tick in all_ticks if below <= tick <= above]
    return ticks if len(ticks) < 9 else [tick for tick in ticks if tick in (below, above) or str(tick)[0] == "1"]


def short(value):
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def self_test():
    def line(number, proxy, cpu, errors=0):
        return f"128b\t{number}\t{proxy}\t0\t{cpu}\t1000 1000000 10 20 30 {errors}\n"
    apart = read([line(1, "nginx", 20000), line(2, "nginx", 22000), line(1, "haproxy", 30000), line(2, "haproxy", 33000)])
    assert "nginx used the least" in table(apart), table(apart)
    assert "1.50 (1.50–1.50)" in table(apart), table(apart)
    assert "| ÷ haproxy |" in table(apart, "haproxy") and "0.67 (0.67–0.67)" in table(apart, "haproxy")
    near = read([line(1, "nginx", 20000), line(2, "nginx", 31000), line(1, "haproxy", 30000), line(2, "haproxy", 33000)])
    assert "no winner" in table(near), table(near)
    assert "INVALID, errors at nginx" in table(read([line(1, "nginx", 1, 7), line(1, "haproxy", 9)]))
    assert median_bounds(range(5)) is None and median_bounds(range(10)) == (1, 8) and median_bounds(range(40)) == (13, 26)
    assert "median 1.500, anywhere" in paired(apart, "nginx"), paired(apart, "nginx")
    def at(loop, number, name, requests, p99=20):
        return f"{loop}\t{number}\t{name}\t0\t9000\t{requests} 1000000 10 {p99} 30 0\n"
    rows = [at("closed", number, name, requests + number) for number in (1, 2)
            for name, requests in (("balancer@1", 1000), ("balancer@2", 1500), ("nginx@1", 900), ("nginx@2", 1500))]
    extra = [f"closed\t{line.split(chr(9))[1]}\t{line.split(chr(9))[2]}\t2048\n" for line in rows]
    extra += [f"open\t1\t{name}\t2048\t100 99 9 95\n" for name in ("balancer@1", "nginx@1")]
    rows += [at("open", 1, "balancer@1", 99), at("open", 1, "nginx@1", 99, 90)]
    text, picture = scaling(read(rows), extra, "cores <shared>")
    assert "| closed | balancer | 2 | 1502 | 1501–1502 | 1.50 (1.50–1.50) | 75 % | 10 | 20 | 20–20 | 30 | 6.0 | 6.0–6.0 | 2 | 0 |" in text, text
    assert "closed loop, 1 core: balancer answered the most requests a second, next nginx." in text, text
    assert "closed loop, 2 cores: no winner" in text and "was sent; the sender used up to 95 %" in text, text
    assert "late by 9 µs" in text and "1 core: no winner in p99; the sender's own" in text, text
    extra[-2:] = [f"open\t1\t{name}\t2048\t100 100 1 50\n" for name in ("balancer@1", "nginx@1")]
    assert "open loop, 1 core: balancer had the lowest p99, next nginx." in scaling(read(rows), extra, "")[0]
    assert "cores &lt;shared&gt;" in picture, text
    xml.dom.minidom.parseString(picture)
    assert even_ticks(7300) == [0, 2000, 4000, 6000, 8000] and even_ticks(1.0)[-1] == 1.0, even_ticks(7300)
    assert log_ticks(30, 400) == [20, 50, 100, 200, 500]
    assert memory_kib(os.getpid()) > 0
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
        case ["memory", pid]:
            print(memory_kib(int(pid)))
        case ["scaling", path, extra, picture, note]:
            with open(path, encoding="utf-8") as file, open(extra, encoding="utf-8") as more:
                text, curves = scaling(read(file), more, note)
            with open(picture, "w", encoding="utf-8") as file:
                file.write(curves)
            print(text)
        case ["paired", path, reference]:
            with open(path, encoding="utf-8") as file:
                print(paired(read(file), reference))
        case ["self-test"]:
            self_test()
        case _:
            raise SystemExit(__doc__)


main()
