"""Medians over rounds, as ratios inside one run, written into docs/benchmarks.md.

    python report.py WORK docs/benchmarks.md

Only the text between the markers `<!-- results -->` and `<!-- /results -->` is replaced.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
from collections import defaultdict
from datetime import date
from pathlib import Path

# A row is not quoted when something else used the machine meanwhile.
NOISE = 0.25


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def median(rows: list[dict], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def grouped(rows: list[dict], *keys: str) -> dict[tuple, list[dict]]:
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return groups


def table(head: list[str], rows: list[list]) -> str:
    line = lambda cells: "| " + " | ".join(str(cell) for cell in cells) + " |"
    return "\n".join([line(head), line(["---"] + ["---:"] * (len(head) - 1)), *map(line, rows)])


def embeddings(rows: list[dict]) -> str:
    good = [row for row in rows if row["min_cosine"] >= 0.999 and not row["not_2xx"] and not row["broken"]]
    quiet = [row for row in good if row["other_cores"] <= NOISE]
    groups = grouped(quiet, "peer", "clients")
    clients = sorted({row["clients"] for row in quiet})
    out = []
    for peer in dict.fromkeys(row["peer"] for row in quiet):
        cells = [peer]
        for count in clients:
            got = groups.get((peer, count))
            cells.append(f"{statistics.median(row['rps'] / row['limit'] for row in got):.2f}" if got else "–")
        busy = groups.get((peer, 32)) or groups.get((peer, clients[-1]))
        cells += [f"{median(busy, 'cpu_ms'):.1f}", f"{median(busy, 'p50_ms'):.0f} / {median(busy, 'p99_ms'):.0f}", f"{median(busy, 'resident_mb'):.0f}"] if busy else ["–"] * 3
        out.append(cells)
    limit = statistics.median(row["limit"] for row in rows)
    head = ["texts/s ÷ limit", *(f"c={count}" for count in clients), "CPU ms/text, c=32", "P50 / P99 ms, c=32", "RSS MB"]
    note = f"{len(quiet)} of {len(rows)} rows counted (right answers, all 2xx, other processes ≤ {NOISE} cores)."
    return f"In-process limit: {limit:.0f} texts/s (2 sessions × 1 thread, length-sorted batches). {note}\n\n{table(head, out)}"


def generation(rows: list[dict]) -> str:
    quiet = [row for row in rows if row["other_cores"] <= NOISE]
    dropped = len(rows) - len(quiet)
    note = f"{len(quiet)} of {len(rows)} rows counted (other processes ≤ {NOISE} cores)." if dropped else ""
    tables = [generation_of(title, [row for row in quiet if row["bits"] == bits]) for bits, title in ((32, "fp32"), (4, "4 bits"))]
    return "\n\n".join(filter(None, [note, *tables]))


def generation_of(title: str, rows: list[dict]) -> str:
    """One table for the peers that run the same precision."""
    rates = grouped([row for row in rows if row["kind"] == "rate"], "peer", "clients")
    inside = grouped([row for row in rows if row["kind"] == "in process"], "clients")
    first = grouped([row for row in rows if row["kind"] in ("calm", "mixed") and row["ttft_p99_ms"]], "peer", "kind")
    clients = sorted({count for _, count in rates})
    names = list(dict.fromkeys(row["peer"] for row in rows))
    our_name = next((name for name in names if name.startswith("sluice")), None)
    out = []
    if inside:
        rate_of = lambda count: f"{median(inside[(count,)], 'tokens_per_second'):.0f}" if (count,) in inside else "–"
        out.append([f"{our_name} without HTTP", *map(rate_of, clients), *["–"] * 3])
    for name in names:
        cells = [name]
        for count in clients:
            got, ours = rates.get((name, count)), inside.get((count,)) if name == our_name else rates.get((our_name, count))
            cells.append(rate_cell(got, ours, name == our_name) if got else "–")
        for kind in ("calm", "mixed"):
            got = first.get((name, kind))
            cells.append(f"{median(got, 'ttft_p50_ms'):.0f} / {median(got, 'ttft_p99_ms'):.0f}" if got else "–")
        busy = rates.get((name, clients[-1])) if clients else None
        cells.append(f"{median(busy, 'resident_mb'):.0f}" if busy else "–")
        out.append(cells)
    head = [f"{title}, tokens/s", *(f"c={count}" for count in clients), "TTFT P50 / P99 ms, c=4", "the same beside long prompts", "RSS MB"]
    return table(head, out) if out else ""


def rate_cell(got: list[dict], other: list[dict] | None, ours: bool) -> str:
    """Ours as a share of what the engine does without HTTP; a peer's with the factor by which we are ahead."""
    rate, failed = median(got, "tokens_per_second"), sum(row["failed"] for row in got)
    reference = median(other, "tokens_per_second") if other else 0
    ratio = f" ({rate / reference:.2f} of that)" if ours else f" (we {reference / rate:.2f} ×)"
    return f"{rate:.0f}" + (ratio if reference and rate else "") + (f", {failed} failed" if failed else "")


def gateways(rows: list[dict]) -> str:
    rate = grouped([row for row in rows if row["kind"] == "rate" and not row["failed"]], "gateway")
    wrk = grouped([row for row in rows if row["kind"] != "rate" and not row["not_2xx"] and not row["broken"]], "gateway", "mode", "kind")
    out = []
    for name in dict.fromkeys(row["gateway"] for row in rows):
        cells = [name]
        for mode in ("json", "sse"):
            got, direct = wrk.get((name, mode, "most")), wrk.get(("direct", mode, "most"))
            cells.append(f"{median(got, 'rps') / median(direct, 'rps'):.3f}" if got and direct else "–")
        most, one, steady = wrk.get((name, "json", "most")), wrk.get((name, "json", "one")), rate.get((name,))
        cells.append(f"{1e3 * median(most, 'cpu_ms'):.0f}" if most and name != "direct" else "–")
        cells.append(f"{1e3 * median(one, 'p50_ms'):.0f} / {1e3 * median(one, 'p99_ms'):.0f}" if one else "–")
        cells.append(f"{median(steady, 'p50'):.2f} / {median(steady, 'p99'):.2f} at {steady[0]['rate']}/s" if steady else "–")
        cells.append(f"{median(most, 'resident_mb'):.0f}" if most and name != "direct" else "–")
        out.append(cells)
    head = ["", "JSON ÷ direct", "SSE ÷ direct", "CPU µs/request", "1 connection P50 / P99 µs", "SSE at a rate, P50 / P99 ms", "RSS MB"]
    return table(head, out)


def hardware() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    return f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), {memory:.0f} GiB, Linux, no GPU"


def main() -> None:
    work, page = Path(sys.argv[1]), Path(sys.argv[2])
    parts = [f"Measured {date.today().isoformat()} by `make bench` on {hardware()}; medians over rounds."]
    for file, title, render in (
        ("embed.jsonl", "Embeddings", embeddings),
        ("generate.jsonl", "Generation", generation),
        ("gateway.jsonl", "Gateway", gateways),
    ):
        rows = read(work / file)
        if rows:
            parts.append(f"### {title}\n\n{render(rows)}")
    text = page.read_text()
    before, rest = text.split("<!-- results -->")
    after = rest.split("<!-- /results -->")[1]
    page.write_text(before + "<!-- results -->\n\n" + "\n\n".join(parts) + "\n\n<!-- /results -->" + after)
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
