"""What bench/gpu's numbers come to: the least times by the limits of the same run, the goals, a table for the terminal.

Law: a goal that wasn't measured is neither met nor missed; times are those by events.
"""

from measure import text_table

# Goals: (name, row, column measured against, what, times as fast at least), (name, row, what, ms at most), (name, row, count, at most).
RATIOS = [("G1", "iteration_first", "eager", "both", 6.0), ("G1", "iteration_first", "compile", "both", 4.0), ("G2", "iteration_late", "compile", "both", 4.0),
          ("G3", "density_on_rays", "eager", "both", 6.0), ("G3", "density_on_rays", "eager", "forward", 4.0),
          ("G3", "density_on_rays", "compile", "forward", 1.5), ("G3", "density_random", "eager", "both", 3.0),
          ("G4", "trajectory_65k", "eager", "both", 20.0), ("G4", "trajectory_65k", "compile", "both", 1.5),
          ("G4", "trajectory_8k", "thesis", "both", 3.0), ("G4", "trajectory_65k", "thesis", "both", 3.0), ("G17", "dynibar_iteration", "eager", "both", 5.0),
          ("G5", "volume_rendering_221", "eager", "both", 8.0), ("G5", "volume_rendering_221", "compile", "both", 2.0),
          ("G6", "loss_late", "compile", "both", 2.5), ("G6", "adam_late", "eager", "both", 1 / 1.05)]
TIMES = [("G1", "iteration_first", "both", 1.5), ("G2", "iteration_late", "both", 2.0), ("G3", "density_on_rays", "forward", 0.2),
         ("G3", "density_random", "both", 1.1), ("G5", "volume_rendering_221", "both", 0.025)]
COUNTS = [("G12", "iteration_first", "kernels", 10), ("G12", "iteration_first", "waits", 0), ("G12", "iteration_late", "waits", 0), ("G12", "dynibar_iteration", "waits", 0)]
# The least time of a row, ms, from the rates measured in the same run: bytes that must move, or additions in memory, four at a time on whole lines.
LEAST = {"density_on_rays": lambda x: 642_000 * 6 * 4 * 6 / table(x, 4096)["add4_lines_g_s"] / 1e6,
         "density_random": lambda x: 642_000 * 6 * 4 * 6 / table(x, 4096)["add4_lines_g_s"] / 1e6,
         "volume_rendering_221": lambda x: 4096 * 221 * 4 * 12 / x["copy_tb_s"] / 1e9,
         "volume_rendering_689": lambda x: 4096 * 689 * 4 * 12 / x["copy_tb_s"] / 1e9,
         "loss_late": lambda x: 9.58e6 * 4 * 2 / x["copy_tb_s"] / 1e9, "adam_late": lambda x: 9.63e6 * 4 * 7 / x["copy_tb_s"] / 1e9,
         "trajectory_8k": lambda x: 8192 * 384 / x["copy_tb_s"] / 1e9, "trajectory_65k": lambda x: 65_536 * 384 / x["copy_tb_s"] / 1e9, "trajectory_197k": lambda x: 196_608 * 384 / x["copy_tb_s"] / 1e9}


def table(limits: dict, texels: int) -> dict:
    return next(t for t in limits["tables"] if t["texels"] == texels)


def goals(result: dict) -> list[dict]:
    rows = {r["row"]: r["columns"] for r in result.get("rows", [])}

    def of(row: str, column: str, key: str) -> float | None:
        return rows.get(row, {}).get(column, {}).get(key)

    found = []

    def goal(name: str, row: str, what: str, asked: float, value: float | None, more: bool) -> None:
        met = None if value is None else value >= asked if more else value <= asked
        found.append({"name": name, "row": row, "what": what, "goal": round(asked, 3), "value": value, "met": met})

    for name, row, against, what, least in RATIOS:
        mine, other = of(row, "heddle", f"{what}_event_ms"), of(row, against, f"{what}_event_ms")
        goal(name, row, f"{what}: times as fast as {against}", least, other / mine if mine and other else None, True)
    for name, row, what, most in TIMES:
        goal(name, row, f"{what}: ms at most", most, of(row, "heddle", f"{what}_event_ms"), False)
    for name, row, key, most in COUNTS:
        goal(name, row, f"{key} at most", most, of(row, "heddle", key), False)
    for row in ("iteration_first", "iteration_late"):
        mine, other = of(row, "heddle", "peak_mb"), of(row, "eager", "peak_mb")
        goal("G15", row, "peak memory by eager's, at most", 0.25, mine / other if mine is not None and other else None, False)
    return found


def show(result: dict) -> str:
    def ms(column: dict, key: str) -> str:
        return f"{column[key]:.3f}" if key in column else "failed" if column.get("note") else "–"

    lines = []
    for r in result.get("rows", []):
        c = {name: r["columns"].get(name, {}) for name in ("eager", "compile", "heddle")}
        best = min((c[n]["both_event_ms"] for n in ("eager", "compile") if "both_event_ms" in c[n]), default=None)
        ratio = f"{best / c['heddle']['both_event_ms']:.2f}" if best and "both_event_ms" in c["heddle"] else "–"
        times = [ms(c[n], f"{what}_ms") for what in ("both_event", "both_batch", "forward_event") for n in c]
        kernels = [str(c[n].get("kernels", "–")) for n in ("eager", "heddle")]
        lines.append([r["row"], *times, *(ms(r["columns"].get(c, {}), "both_event_ms") for c in ("graph", "thesis")), ratio, ms(r, "least_ms"), *kernels, f"{c['heddle'].get('worst_error', 0):.0e}"])
    text = "ms by events, forward and backward | many in a row | forward | heddle's step as a CUDA graph; the thesis's kernel; x: the faster of eager and inductor by heddle; least: by the limits of this run\n"
    three = ["eager", "compile", "heddle"]
    text += text_table(["row", *three, *["| eager", *three[1:]] * 2, "| graph", "thesis", "x", "least", "kernels", "heddle", "error"], lines)
    met = {True: "met", False: "missed", None: "not measured"}
    asked = [[g["name"], g["row"], g["what"], f"{g['goal']:g}", "–" if g["value"] is None else f"{g['value']:.3g}", met[g["met"]]]
             for g in result.get("goals", [])]
    text += "\n\n" + text_table(["goal", "row", "what", "asked", "reached", ""], asked) if asked else ""
    if isinstance(result.get("limits"), dict):
        text += "\n\nlimits: " + ", ".join(f"{k} {v}" for k, v in result["limits"].items() if not isinstance(v, list))
    failed = [f"{part}: {e}" for part, e in result.get("errors", {}).items()]
    failed += [f"{r['row']}, {name}: {c['note']}" for r in result.get("rows", []) for name, c in r["columns"].items() if c.get("note")]
    failed += [f"{r['row']}: {r['note']}" for r in result.get("rows", []) if r.get("note")]
    return text + ("\n\n" + "\n".join(failed) if failed else "")
