#!/usr/bin/env python3
"""What the examples must give, computed by plain code: no engine, no Arrow, the standard library alone.

    truth.py data                    writes data/signals.jsonl and data/payments.jsonl
    truth.py golden                  writes golden/*.jsonl
    truth.py check NAME FILE         compares an output with golden/NAME.jsonl, whatever the order of its lines; exit code 1 if they differ

Names: word-count, word-count-changes, signal-windows, flag-runs, current-flag, late-signals, team-totals, platform-pairs. Of a stream of changes, what is left at its end is compared.
"""

import datetime
import json
import math
import pathlib
import random
import re
import struct
import sys

HERE = pathlib.Path(__file__).parent
MASK = (1 << 64) - 1
UTC = datetime.timezone.utc
BASELINES = [42, 22, 5, 11, 3]
FLAG_SEED = 7
WINDOW = 15
# Outputs that are streams of changes, with their keys.
CHANGES = {"word-count-changes": ["word"], "current-flag": ["baseline_id"]}
TIMES = {"window_start", "window_end", "end_time", "create_time"}


def words(text):
    """tr -cs A-Za-z '\\n' | tr A-Z a-z | sort | uniq -c"""
    counts = {}
    for word in re.findall("[A-Za-z]+", text):
        counts[word.lower()] = counts.get(word.lower(), 0) + 1
    return [{"word": word, "n": n} for word, n in sorted(counts.items())]


def signals():
    """600 signals, two a second, each up to 2 s before or after its turn; blocks of 60 alternate between noise and a sine."""
    rng = random.Random(FLAG_SEED)
    start = datetime.datetime(2024, 1, 1, tzinfo=UTC)
    rows = []
    for row in range(600):
        value = rng.uniform(-1, 1) if row // 60 % 2 == 0 else math.sin(2 * math.pi * (row % 60) / 60)
        time = start + datetime.timedelta(seconds=row // 2)
        rows.append((row / 2 + rng.uniform(0, 2), time, rng.choice(BASELINES), value))
    for _, time, baseline, value in sorted(rows, key=lambda row: row[0]):
        yield {"createTime": time.strftime("%Y-%m-%d %H:%M:%S"), "baselineId": baseline, "signalValue": round(value, 4)}


def flag(seed, partition, offset):
    z = (seed ^ (partition * 0x9E3779B97F4A7C15) ^ (offset * 0xD1B54A32D192ED03)) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return (z ^ (z >> 31)) & 1


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


TEAMS = {0: "Red", 1: "Green", 2: "Blue"}


def payments():
    """200 payments, one a second."""
    rng = random.Random(FLAG_SEED)
    start = datetime.datetime(2024, 1, 1, tzinfo=UTC)
    for order in range(200):
        time = start + datetime.timedelta(seconds=order)
        yield {"createTime": time.strftime("%Y-%m-%d %H:%M:%S"), "orderId": order, "payAmount": rng.randrange(1, 10_000_000) / 100,
               "payPlatform": rng.randrange(3), "teamId": rng.randrange(4)}


def paid(data):
    """The outputs of payments.yaml for the bytes of its input. Sums are of whole cents."""
    totals, pairs, cents, waiting = [], [], {}, {}
    for line in data.splitlines():
        record = json.loads(line)
        order, amount, platform = record["orderId"], record["payAmount"], record["payPlatform"]
        team = TEAMS.get(record["teamId"], "other")
        cents[team] = cents.get(team, 0) + round(amount * 100)
        totals.append({"order_id": order, "team": team, "platform": platform, "amount": amount, "total": cents[team] / 100})
        if platform in waiting:
            pairs.append({"platform": platform, "pair_average": waiting.pop(platform) / 2 + amount / 2, "order_id": order})
        else:
            waiting[platform] = amount
    return {"team-totals": totals, "platform-pairs": pairs}


def iso(seconds):
    return datetime.datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def quality(data):
    """The outputs of signal-quality-file.yaml for the bytes of its input."""
    windows, runs, open_runs, current, late = {}, [], {}, {}, []
    offset, newest = 0, -math.inf
    for line in data.splitlines(keepends=True):
        record = json.loads(line)
        time = int(datetime.datetime.strptime(record["createTime"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
        baseline, value = record["baselineId"], float32(record["signalValue"])
        flagged = flag(FLAG_SEED, 0, offset)
        offset += len(line)
        newest = max(newest, time)
        assert time // WINDOW * WINDOW + WINDOW > newest - 3, "a record may be late: whether it is depends on the size of batches"
        windows.setdefault((time // WINDOW * WINDOW, baseline), []).append((value, flagged))
        if flagged:
            open_runs[baseline] = open_runs.get(baseline, 0) + 1
        elif baseline in open_runs:
            runs.append({"baseline_id": baseline, "run_length": open_runs.pop(baseline), "end_time": iso(time)})
        current[baseline] = {"baseline_id": baseline, "flag": flagged, "create_time": iso(time)}
    rows = []
    for (start, baseline), content in sorted(windows.items()):
        values = [value for value, _ in content]
        rows.append({
            "baseline_id": baseline, "window_start": iso(start), "window_end": iso(start + WINDOW),
            "mean": math.fsum(values) / len(values), "max": max(values), "min": min(values),
            "n": len(values), "flags": sum(flagged for _, flagged in content),
        })
    return {"signal-windows": rows, "flag-runs": runs, "current-flag": [current[key] for key in sorted(current)], "late-signals": late}


def golden():
    counts = words((HERE / "data/words.txt").read_text())
    return {"word-count": counts, "word-count-changes": counts, **quality((HERE / "data/signals.jsonl").read_bytes()),
            **paid((HERE / "data/payments.jsonl").read_bytes())}


def write_lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines() if line]


def last_rows(rows, key):
    """What a stream of changes leaves: the last row of each key, unless that is a delete."""
    kept = {}
    for row in rows:
        at = tuple(row[column] for column in key)
        if row["op"] == "-D":
            kept.pop(at, None)
        elif row["op"] != "-U":
            kept[at] = {name: value for name, value in row.items() if name != "op"}
    return list(kept.values())


def plain(row):
    """Times as text, numbers to nine digits (float32 to six), so that a sum in another order is the same."""
    out = {}
    for name, value in row.items():
        if name in TIMES and isinstance(value, int):
            value = iso(value / 1_000_000)
        if isinstance(value, float):
            value = f"{value:.6f}" if name in ("max", "min") else f"{value:.9f}"
        elif name in ("mean", "max", "min"):
            value = f"{float(value):.6f}" if name in ("max", "min") else f"{float(value):.9f}"
        out[name] = value
    return json.dumps(out, sort_keys=True)


def check(name, path):
    rows = read_lines(path)
    if name in CHANGES:
        rows = last_rows(rows, CHANGES[name])
    found, expected = sorted(map(plain, rows)), sorted(map(plain, read_lines(HERE / f"golden/{name}.jsonl")))
    for what, ours, theirs in (("missing", expected, found), ("too many", found, expected)):
        rest = list(theirs)
        for row in ours:
            if row in rest:
                rest.remove(row)
            else:
                print(f"{name}: {what}: {row}", file=sys.stderr)
    if found != expected:
        sys.exit(1)
    print(f"{name}: {len(found)} rows, as they should be", file=sys.stderr)


def main():
    match sys.argv[1:]:
        case ["data"]:
            write_lines(HERE / "data/signals.jsonl", signals())
            write_lines(HERE / "data/payments.jsonl", payments())
        case ["golden"]:
            for name, rows in golden().items():
                write_lines(HERE / f"golden/{name}.jsonl", rows)
        case ["check", name, path]:
            check(name, path)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
