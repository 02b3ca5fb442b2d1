#!/usr/bin/env python3
"""table.py PROFILE JSON: medians of what the oracle's prof.py printed, as a table and as JSON."""

import json
import re
import statistics
import sys

rows = []
with open(sys.argv[1], encoding="utf-8") as lines:
    for line in lines:
        found = re.match(r"(\S+)\s+burst\s+(\d+)\s.*\(runs ([\d. ]+)\)\s+arrived ([\d.]+)\s+(.*)", line)
        if not found:
            continue
        name, burst, runs, arrived, parts = found.groups()
        runs = [float(run) for run in runs.split()]
        user = re.search(r"'user': (-?\d+)", parts)
        row = {
            "case": name,
            "burst": int(burst),
            "instructions": statistics.median(runs),
            "least": min(runs),
            "greatest": max(runs),
            "user": int(user[1]) if user else 0,
            "arrived": float(arrived),
            "runs": len(runs),
        }
        rows.append(row)
print(f"{'case':<30} {'instructions a packet':>22}  {'(least to greatest)':<22} {'of them in user space':>22}")
for row in rows:
    if row["case"].startswith("base"):
        continue
    spread = f"({row['least']:.0f} to {row['greatest']:.0f})"
    print(f"{row['case']:<30} {row['instructions']:>22.0f}  {spread:<22} {row['user']:>22}")
    if row["arrived"] < 0.99:
        print(f"    only {row['arrived']:.3f} of the packets arrived")
with open(sys.argv[2], "w", encoding="utf-8") as out:
    json.dump(rows, out)
