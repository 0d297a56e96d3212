#!/usr/bin/env bash
# What this host is, for whoever reads a benchmark made on it: JSON on stdout, and on stderr a warning for each thing
# that spoils one. What cannot be read is null. Changes nothing and needs no root.
#
#   scripts/bench-host.sh [--balancer PATH]
set -euo pipefail
source "$(dirname "$0")/lib.sh"

balancer=$scripts/../target/release/balancer
options "balancer" "$@"
need python3
python3 - "$balancer" <<'PY'
import glob, json, os, platform, re, resource, shutil, subprocess, sys, time

def text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip().replace("\t", " ") or None
    except OSError:
        return None

def number(path):
    found = text(path)
    return int(found) if found and re.fullmatch(r"-?\d+", found) else None

def cores_of(listed):
    """0-2,5 as numbers."""
    parts = [part.split("-") for part in (listed or "").split(",") if part]
    return [core for part in parts for core in range(int(part[0]), int(part[-1]) + 1)]

def one_or_all(values):
    """What all of them say, once."""
    values = sorted(set(values) - {None})
    return values[0] if len(values) == 1 else values or None

def said(*command):
    """The first line that a program says of its version."""
    try:
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             timeout=5, check=False)
        return ran.stdout.decode(errors="replace").strip().splitlines()[0].strip()
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return None

def cpu():
    model = re.search(r"^(?:model name|Model|CPU part)\s*:\s*(.+)$", text("/proc/cpuinfo") or "", re.M)
    allowed = sorted(os.sched_getaffinity(0))
    siblings = {core: cores_of(text(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")) or [core]
                for core in allowed}
    return {
        "model": model and model[1],
        "online": text("/sys/devices/system/cpu/online"),
        "allowed": allowed,
        "physical_cores_allowed": len({tuple(of) for of in siblings.values()}),
        "smt_siblings": sorted({tuple(of) for of in siblings.values() if len(of) > 1}),
        "isolated": text("/sys/devices/system/cpu/isolated"),
        "quota": text("/sys/fs/cgroup/cpu.max") or text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        "governor": one_or_all(map(text, glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))),
        "turbo": turbo(),
        "idle_driver": text("/sys/devices/system/cpu/cpuidle/current_driver"),
        "clocksource": text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "mitigations": {os.path.basename(path): text(path)
                        for path in sorted(glob.glob("/sys/devices/system/cpu/vulnerabilities/*"))},
    }

def turbo():
    intel, others = number("/sys/devices/system/cpu/intel_pstate/no_turbo"), number("/sys/devices/system/cpu/cpufreq/boost")
    return not intel if intel is not None else bool(others) if others is not None else None

def numa():
    return {os.path.basename(path): text(path + "/cpulist") for path in sorted(glob.glob("/sys/devices/system/node/node[0-9]*"))}

def memory():
    return {name + "_kib": int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text("/proc/meminfo") or "", re.M)
            if name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")} | {
        "transparent_hugepage": text("/sys/kernel/mm/transparent_hugepage/enabled")}

def limits():
    def pair(which):
        return [None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(which)]
    return {"nofile": pair(resource.RLIMIT_NOFILE), "memlock_bytes": pair(resource.RLIMIT_MEMLOCK)}

def network():
    names = ("core/somaxconn", "core/netdev_max_backlog", "core/busy_poll", "ipv4/tcp_max_syn_backlog", "ipv4/tcp_rmem",
             "ipv4/tcp_wmem", "ipv4/tcp_congestion_control", "ipv4/ip_local_port_range")
    return {os.path.basename(name): text("/proc/sys/net/" + name) for name in names} | {
        "interfaces": {os.path.basename(path): interface(path) for path in sorted(glob.glob("/sys/class/net/*"))
                       if os.path.exists(path + "/device")}}

def interface(path):
    # A virtio device has its interrupts one floor up, at its PCI function.
    device = os.path.realpath(path + "/device")
    irqs = next((found for at in (device, os.path.dirname(device)) if (found := glob.glob(at + "/msi_irqs/*"))), [])
    irqs = sorted(int(os.path.basename(irq)) for irq in irqs)
    return {
        "driver": os.path.basename(os.path.realpath(path + "/device/driver")),
        "state": text(path + "/operstate"), "speed_mbit": number(path + "/speed"), "mtu": number(path + "/mtu"),
        "rx_queues": len(glob.glob(path + "/queues/rx-*")), "tx_queues": len(glob.glob(path + "/queues/tx-*")),
        "rps_cpus": one_or_all(map(text, glob.glob(path + "/queues/rx-*/rps_cpus"))),
        "irq_affinity": {irq: text(f"/proc/irq/{irq}/smp_affinity_list") for irq in irqs},
    }

def virtual():
    detected = said("systemd-detect-virt", "--vm") if shutil.which("systemd-detect-virt") else None
    return {
        "hypervisor": " hypervisor" in (text("/proc/cpuinfo") or ""),
        "kind": None if detected == "none" else detected,
        "product": text("/sys/class/dmi/id/product_name"),
        "container": os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"),
    }

def load():
    """The averages, and what of the CPU time of the next 300 ms others used or the hypervisor took."""
    def times():
        return [int(word) for word in text("/proc/stat").splitlines()[0].split()[1:9]]
    before = times()
    time.sleep(.3)
    spent = [after - was for after, was in zip(times(), before)]
    total = max(1, sum(spent))
    return {"average": [round(of, 2) for of in os.getloadavg()], "busy_percent": round(100 * (total - spent[3] - spent[4]) / total, 1),
            "steal_percent": round(100 * spent[7] / total, 1)}

def versions():
    commands = {"balancer": [sys.argv[1], "--version"], "nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"],
                "varnish": ["varnishd", "-V"], "envoy": ["envoy", "--version"], "wrk": ["wrk", "-v"],
                "h2load": ["h2load", "--version"]}
    return {name: said(*command) for name, command in commands.items()}

def fact(of):
    try:
        return of()
    except Exception as error:  # A host unlike all we know must still give JSON; it says what is missing.
        print(f"warning: {of.__name__}: {error!r}", file=sys.stderr)
        return None

facts = {"kernel": fact(platform.release), "machine": fact(platform.machine)}
for of in (cpu, numa, memory, limits, network, virtual, load, versions):
    facts[of.__name__] = fact(of)

def get(*path):
    found = facts
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found

def spoilers():
    if get("cpu", "governor") not in (None, "performance"):
        yield f"the CPU governor is {get('cpu', 'governor')}, not performance: the clock follows the load"
    if get("cpu", "turbo"):
        yield "turbo is on: the clock depends on how many cores work and how hot they are"
    if get("cpu", "smt_siblings"):
        yield f"these share a physical core: {get('cpu', 'smt_siblings')}; give a proxy one of each and leave the other idle"
    physical = get("cpu", "physical_cores_allowed")
    if physical and physical < 4:
        yield f"{physical} physical cores: with load and backend on cores of their own, {max(0, physical - 2)} left to a proxy"
    if (get("cpu", "quota") or "max").split()[0] not in ("max", "-1"):
        yield f"a CPU quota is set ({get('cpu', 'quota')}): what exceeds it stands still"
    if get("cpu", "clocksource") not in (None, "tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"):
        yield f"the clock source is {get('cpu', 'clocksource')}: each look at the clock is a slow one"
    if len(get("numa") or {}) > 1:
        yield f"{len(get('numa'))} NUMA nodes: keep proxy, load and backend on one, or say that they are not"
    if get("virtual", "hypervisor"):
        yield "a hypervisor is below: neighbours and its scheduler are in every figure"
    busy, steal = get("load", "busy_percent"), get("load", "steal_percent")
    if busy is not None and busy > 5:
        yield f"others use {busy} % of the CPUs right now; load averages {get('load', 'average')}"
    if steal:
        yield f"the hypervisor takes {steal} % of the CPU time right now"
    if (get("memory", "SwapTotal_kib") or 0) - (get("memory", "SwapFree_kib") or 0) > 65536:
        yield "swap is in use"
    if (get("limits", "nofile") or [None])[0] and get("limits", "nofile")[0] < 8192:
        yield f"only {get('limits', 'nofile')[0]} descriptors are allowed: ulimit -n"
    if (get("limits", "memlock_bytes") or [None])[0] and get("limits", "memlock_bytes")[0] < 8 << 20:
        yield f"only {get('limits', 'memlock_bytes')[0] >> 10} KiB may be locked: ulimit -l; balancer needs 512 KiB a core"
    if int(get("network", "somaxconn") or 4096) < 4096:
        yield f"net.core.somaxconn is {get('network', 'somaxconn')}: shorter than the queues that proxies ask for"

facts["warnings"] = list(fact(lambda: list(spoilers())) or [])
for warning in facts["warnings"]:
    print(f"warning: {warning}", file=sys.stderr)
json.dump(facts, sys.stdout, indent=1)
print()
PY
