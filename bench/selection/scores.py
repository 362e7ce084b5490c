"""Precision, recall and F1 of verdicts, as a table."""

from __future__ import annotations


def scores(rows: list[dict]) -> dict[str, float]:
    """Counts, precision, recall and F1 of rows with `fault` ("" for none) and `usable`."""
    good, bad = [r for r in rows if not r["fault"]], [r for r in rows if r["fault"]]
    hits, false = sum(r["usable"] for r in good), sum(r["usable"] for r in bad)
    precision = hits / (hits + false) if hits + false else 0.0
    recall = hits / len(good) if good else 0.0
    both = precision + recall
    return {
        "videos": len(rows), "valid": len(good), "taken": hits, "faulty": len(bad), "passed": false,
        "precision": precision, "recall": recall, "f1": 2 * precision * recall / both if both else 0.0,
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    """Markdown: all rows, then by fault, task and hand; then each false verdict with its reasons."""
    if not rows:
        return "nothing has been judged"
    s = scores(rows)
    lines = [
        "| videos | valid taken | faulty taken | precision | recall | F1 |", "| --- " * 6 + "|",
        f"| {s['videos']} | {s['taken']}/{s['valid']} | {s['passed']}/{s['faulty']} | "
        f"{s['precision']:.2f} | {s['recall']:.2f} | {s['f1']:.2f} |",
        "", "| fault | taken |", "| --- | --- |",
    ]  # fmt: skip
    for fault in sorted({r["fault"] for r in rows}):
        mine = [r for r in rows if r["fault"] == fault]
        lines.append(f"| {fault or 'none'} | {sum(r['usable'] for r in mine)}/{len(mine)} |")
    for name in ("task", "hand"):
        lines += ["", f"| {name} | valid taken | faulty taken |", "| --- | --- | --- |"]
        for value in dict.fromkeys(r[name] for r in rows):
            s = scores([r for r in rows if r[name] == value])
            lines.append(
                f"| {value or 'as drawn'} | {s['taken']}/{s['valid']} | {s['passed']}/{s['faulty']} |"
            )
    wrong = [r for r in rows if r["usable"] == bool(r["fault"])]
    lines += ["", f"False verdicts: {len(wrong)}", ""]
    for r in wrong:
        why = "; ".join(r["reasons"]) or "nothing was found"
        if r.get("camera_taken_out"):
            why += "; what the camera did was taken out as the clip was read"
        lines.append(
            f"- {r['task']} {r['clip']}, {r['fault'] or 'valid'}, hand {r['hand'] or 'as drawn'}: "
            f"{r['total']:.1f} points: {why}"
        )
    return "\n".join(lines)
