#!/usr/bin/env python3
"""Writes out/report.html from what `heddle bench` and two `heddle train` runs left: one file, no scripts, nothing loaded.

Whatever is missing is left out and said so; no number on the page is computed here, except ratios, means and smoothing.

Reads, all JSON keys optional:
  --bench   {"model", "device", "scale", "threads", "cold_s", "warm_s", "iteration": {"eager_ms", "fused_ms"}, "stages": [
             {"name", "ops_eager", "launches_fused", "bytes_fused", "eager_ms", "fused_ms", "max_rel_err_out", "max_rel_err_grad"}]}
  --eager, --fused   a training log, in one of two forms:
             {"terms": [name], "losses": [[value of each term] per iteration], "first", "seconds",
              "evaluations": [{"iteration", "psnr", "views": [dB]}]}, where terms[0] is the loss and terms[1] the squared error
             {"iterations": [{"it", "loss", "mse", "psnr", "ms"}], "held_out_psnr", "views": [{"rendered": png, "truth": png}]}
             Without "views" of pictures the folder named like the log, less .json, is searched for view_*.png, each with the
             rendered view on the left and the truth on the right.
  --dump    a folder of kernels: *.cu, *.hir, *.ptx, *.ll as text
  --peers   what bench/peers.py wrote, any number of files
"""
import argparse
import base64
import datetime
import html
import json
import math
import pathlib
import struct

MAX_VIEWS, MAX_POINTS, MAX_KERNEL_CHARS = 3, 400, 60_000
NONE = "–"

STYLE = """
:root { --bg:#fbfaf7; --ink:#22211e; --soft:#6d6a62; --line:#e0dcd2; --card:#fff; --eager:#d98c3f; --fused:#1f6f78; --code:#f3f1ea }
@media (prefers-color-scheme: dark) { :root { --bg:#16171a; --ink:#e6e3dc; --soft:#9a978f; --line:#313338; --card:#1d1f23;
  --eager:#e0a060; --fused:#5fc0c8; --code:#1a1c20 } }
* { box-sizing:border-box }
body { margin:0; background:var(--bg); color:var(--ink); font:16px/1.55 Charter,"Bitstream Charter","Source Serif 4",Georgia,serif }
main { max-width:1060px; margin:0 auto; padding:56px 28px 96px }
h1 { font-size:40px; line-height:1.1; margin:0; letter-spacing:-.01em; font-weight:600 }
h2 { font-size:22px; margin:56px 0 4px; font-weight:600 }
p { max-width:70ch; margin:.5em 0 }
.soft, figcaption, .sub { color:var(--soft) }
.sub { font-size:17px; margin-top:10px }
table, .figure, svg text, .key, pre, summary { font-family:"Inter","Helvetica Neue",Helvetica,Arial,"Liberation Sans",sans-serif }
.figures { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:1px; margin:32px 0 0; background:var(--line);
  border:1px solid var(--line) }
.figure { background:var(--card); padding:16px 18px }
.figure b { display:block; font-size:28px; font-weight:600; letter-spacing:-.02em; line-height:1.2; white-space:nowrap }
.figure span { font-size:13px; color:var(--soft); line-height:1.35; display:block }
.scroll { overflow-x:auto; margin-top:16px }
table { border-collapse:collapse; width:100%; font-size:14px; font-variant-numeric:tabular-nums }
th { font-weight:500; color:var(--soft); text-align:right; padding:6px 10px; border-bottom:1px solid var(--ink); white-space:nowrap; vertical-align:bottom }
td { text-align:right; padding:7px 10px; border-bottom:1px solid var(--line); white-space:nowrap }
th:first-child, td:first-child { text-align:left; padding-left:0 }
th:last-child, td:last-child { text-align:left; padding-right:0 }
tr.all td { font-weight:600; border-bottom:1px solid var(--ink) }
.bars { display:block }
.curves { display:grid; grid-template-columns:repeat(auto-fit,minmax(420px,1fr)); gap:28px; margin-top:16px }
.curves svg { width:100%; height:auto; display:block }
svg text { font-size:11px; fill:var(--soft) }
svg .title { fill:var(--ink); font-size:13px }
.grid { stroke:var(--line) } .e { stroke:var(--eager); fill:none } .f { stroke:var(--fused); fill:none }
.ef { fill:var(--eager) } .ff { fill:var(--fused) }
.key { font-size:13px; color:var(--soft) } .key i { display:inline-block; width:22px; border-radius:2px; vertical-align:middle; margin:0 6px 0 0 }
.key span { margin-right:20px }
.views { display:grid; grid-template-columns:repeat(3,1fr); gap:10px; margin-top:16px }
figure { margin:0 } figcaption { font-size:14px; padding-top:4px }
.views img { width:100%; display:block; object-fit:cover; image-rendering:auto; background:var(--card); border:1px solid var(--line) }
details { border-top:1px solid var(--line) } details:last-of-type { border-bottom:1px solid var(--line) }
summary { cursor:pointer; padding:9px 0; font-size:14px } summary .soft { float:right; font-variant-numeric:tabular-nums }
pre { background:var(--code); padding:16px; overflow:auto; max-height:560px; font:12.5px/1.5 "JetBrains Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace; margin:0 0 16px }
footer { margin-top:64px; color:var(--soft); font-size:14px }
@media (max-width:560px) { .curves { grid-template-columns:1fr } main { padding:32px 16px } }
"""


# ---- reading ----------------------------------------------------------------------------------------------------------

def read_json(path):
    return json.loads(path.read_text()) if path and path.exists() else None


def number(value):
    """value as a finite float, or None."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def ratio(a, b):
    return a / b if a is not None and b else None


class Training:
    """A training log in either form: lists per iteration, None where the log has no value."""

    def __init__(self, path):
        log = read_json(path) or {}
        rows = log if isinstance(log, list) else log.get("iterations", [])
        log = {} if isinstance(log, list) else log
        if isinstance(rows, list) and rows:
            self.at = [row.get("it", i) for i, row in enumerate(rows)]
            self.loss, self.mse, self.psnr = ([number(row.get(key)) for row in rows] for key in ("loss", "mse", "psnr"))
            times = [t for t in (number(row.get("ms")) for row in rows) if t is not None]
            self.ms = sum(times) / len(times) if times else None
        else:
            losses = log.get("losses", [])
            self.at = [log.get("first", 0) + i for i in range(len(losses))]
            self.loss = [number(row[0]) for row in losses]
            self.mse = [number(row[1]) if len(row) > 1 else None for row in losses]
            self.psnr = [None] * len(losses)
            self.ms = ratio(number(log.get("seconds")), len(losses) / 1000)
        self.psnr = [p if p is not None else -10 * math.log10(max(m, 1e-12)) if m is not None else None
                     for p, m in zip(self.psnr, self.mse)]
        last = (log.get("evaluations") or [{}])[-1]
        self.held_out = number(log.get("held_out_psnr", last.get("psnr")))
        self.views = []  # (rendered, truth): each an <img>
        if path:
            for view in [v for v in log.get("views", []) if isinstance(v, dict)][:MAX_VIEWS]:
                self.views.append(tuple(picture(locate(view.get(key), path)) for key in ("rendered", "truth")))
            if not self.views:
                pairs = sorted(path.with_suffix("").glob("view_*.png"))[:MAX_VIEWS]
                self.views = [(picture(p, "left"), picture(p, "right")) for p in pairs]


def locate(name, log):
    """A picture named in a log: as it stands, or beside the log."""
    if not name:
        return None
    return next((p for p in (pathlib.Path(name), log.parent / name) if p.exists()), None)


def picture(path, half=None):
    """An <img> with the PNG inside; `half` shows the left or right half of it."""
    if path is None:
        return None
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    style = f"aspect-ratio:{width / (2 if half else 1):g}/{height};object-position:{half or 'center'}"
    return f'<img alt="" style="{style}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


# ---- writing ----------------------------------------------------------------------------------------------------------

def text(value, form="{:.2f}"):
    return NONE if value is None else form.format(value)


def times(value):
    return text(value, "{:.1f} ×" if value is None or value < 100 else "{:.0f} ×")


def size(value):
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000


def milliseconds(value):
    return text(value, "{:.2f}" if value is not None and value < 10 else "{:.1f}")


def stage_rows(bench):
    """The rows of the stage table, as text but for the two times; the whole iteration last."""
    rows = []
    for s in bench.get("stages", []):
        eager, fused = number(s.get("eager_ms")), number(s.get("fused_ms"))
        rows.append(([str(s.get("name", "?")), text(number(s.get("ops_eager")), "{:.0f}"), text(number(s.get("launches_fused")), "{:.0f}"),
                      size(number(s.get("bytes_fused"))), milliseconds(eager), milliseconds(fused),
                      text(number(s.get("max_rel_err_out")), "{:.1e}"), text(number(s.get("max_rel_err_grad")), "{:.1e}")], eager, fused))
    whole = bench.get("iteration") or {}
    eager, fused = number(whole.get("eager_ms")), number(whole.get("fused_ms"))
    if eager is not None or fused is not None:
        rows.append((["whole iteration", "", "", "", milliseconds(eager), milliseconds(fused), "", ""], eager, fused))
    return rows


HEAD = ["stage", "ops eager", "launches fused", "bytes fused", "eager ms", "fused ms", "error out", "error grad"]


def print_table(bench):
    """The stage table for a terminal."""
    lines = [HEAD + ["faster"]] + [cells + [times(ratio(e, f))] for cells, e, f in stage_rows(bench)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    for line in lines:
        print("  " + "  ".join(c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths))))


def stage_table(bench):
    rows = stage_rows(bench)
    longest = max((t for _, e, f in rows for t in (e, f) if t), default=1)
    out = ["<div class=scroll><table><tr>", *(f"<th>{h.replace(' ', '<br>') if k else h}" for k, h in enumerate(HEAD)), "<th>time, and how much faster"]
    for cells, eager, fused in rows:
        bars = ""
        for klass, value, y in (("ef", eager, 1), ("ff", fused, 10)):
            bars += f'<rect class={klass} x=0 y={y} width="{150 * (value or 0) / longest:.1f}" height=7 rx=1 />'
        out.append(f"<tr{' class=all' if cells[0] == 'whole iteration' else ''}>" + "".join(f"<td>{html.escape(c)}" for c in cells) +
                   f'<td><svg class=bars width=220 height=18 role=img><g>{bars}</g><text x=216 y=13 text-anchor=end '
                   f'style="fill:var(--ink);font-size:13px">{times(ratio(eager, fused))}</text></svg>')
    return "".join(out) + "</table></div>"


def smooth(values, keep):
    """Exponential mean that starts unbiased; None stays out of it."""
    out, mean, weight = [], 0.0, 0.0
    for v in values:
        if v is not None:
            mean, weight = keep * mean + (1 - keep) * v, keep * weight + (1 - keep)
        out.append(mean / weight if weight else None)
    return out


def ticks(lo, hi, log):
    """Four to eight round numbers between lo and hi."""
    if log:
        marks = [m * 10.0 ** e for e in range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1) for m in (1, 2, 5)]
        return [m for m in marks if lo <= m <= hi] or [lo, hi]
    step = 10.0 ** math.floor(math.log10((hi - lo) / 4 or 1))
    step *= next((m for m in (1, 2, 5) if (hi - lo) / (step * m) <= 7), 10)
    return [k * step for k in range(math.ceil(lo / step), math.floor(hi / step) + 1)]


def curve(title, unit, eager, fused, key, log):
    """Both runs in one SVG: eager a broad pale line, fused a thin one on it, so that equal runs look equal."""
    runs = []
    for klass, width, run in (("e", 7, eager), ("f", 1.5, fused)):
        values = smooth(getattr(run, key), 0.9)
        stride = max(1, len(values) // MAX_POINTS)
        kept = sorted({*range(0, len(values), stride), len(values) - 1}) if values else []
        runs.append((klass, width, [(run.at[i], values[i]) for i in kept if values[i] is not None and (values[i] > 0 or not log)]))
    points = [p for _, _, run in runs for p in run]
    if not points:
        return ""
    left, right, top, bottom, w, h = 48, 12, 30, 28, 500, 270
    scale = math.log10 if log else float
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    lo, hi = min(p[1] for p in points), max(p[1] for p in points)
    if lo == hi:
        lo, hi = (lo * 0.9, hi * 1.1) if log else (lo - 1, hi + 1)

    def px(x):
        return left + (x - x0) / ((x1 - x0) or 1) * (w - left - right)

    def py(y):
        return h - bottom - (scale(y) - scale(lo)) / (scale(hi) - scale(lo)) * (h - top - bottom)

    out = [f'<svg viewBox="0 0 {w} {h}" role=img><text class=title x=0 y=14>{title}<tspan dx=6 fill-opacity=.6>{unit}</tspan></text>']
    for y in ticks(lo, hi, log):
        out.append(f'<line class=grid x1={left} x2={w - right} y1="{py(y):.1f}" y2="{py(y):.1f}" />'
                   f'<text x={left - 8} y="{py(y) + 4:.1f}" text-anchor=end>{y:g}</text>')
    for x in ticks(x0, x1, False):
        out.append(f'<text x="{px(x):.1f}" y={h - 8} text-anchor=middle>{x:g}</text>')
    for klass, width, run in runs:
        if run:
            path = "M" + "L".join(f"{px(x):.1f} {py(y):.1f}" for x, y in run)
            out.append(f'<path class={klass} d="{path}" stroke-width={width} stroke-linejoin=round stroke-linecap=round '
                       f'stroke-opacity={".5" if klass == "e" else "1"} />')
    return "".join(out) + "</svg>"


def curves(eager, fused):
    charts = [curve("Loss", "log scale", eager, fused, "loss", True), curve("PSNR on training rays", "dB", eager, fused, "psnr", False)]
    if not any(charts):
        return "<p class=soft>No training log was given.</p>"
    pairs = [(a, b) for a, b in zip(eager.loss, fused.loss) if a and b is not None]
    apart = f"The two losses differ by at most {max(abs(a - b) / abs(a) for a, b in pairs):.1e} of their value over {len(pairs)} iterations." if pairs else ""
    return (f'<p class=soft>Same seed, same rays, smoothed over about ten iterations. {apart}</p><p class=key><span><i style="height:6px;background:'
            'var(--eager);opacity:.5"></i>eager</span><span><i style="height:2px;background:var(--fused)"></i>fused</span></p>'
            f"<div class=curves>{''.join(charts)}</div>")


def pictures(eager, fused):
    cells = []
    for k in range(max(len(eager.views), len(fused.views))):
        e, f = (run.views[k] if k < len(run.views) else (None, None) for run in (eager, fused))
        for image, name, run in ((e[1] or f[1], "truth", None), (e[0], "eager", eager), (f[0], "fused", fused)):
            quality = f", {run.held_out:.2f} dB over all held-out views" if run and run.held_out is not None and k == 0 else ""
            cells.append(f"<figure>{image or ''}<figcaption>{name if image else f'no {name} picture'}{quality}</figcaption></figure>")
    return f"<div class=views>{''.join(cells)}</div>" if cells else "<p class=soft>No pictures were given.</p>"


def kernels(dump):
    files = sorted(p for p in dump.rglob("*") if p.suffix in (".cu", ".hir", ".ptx", ".ll")) if dump and dump.is_dir() else []
    out = []
    for path in files:
        source = path.read_text(errors="replace")
        cut = f"\n... {len(source) - MAX_KERNEL_CHARS:,} more characters" if len(source) > MAX_KERNEL_CHARS else ""
        out.append(f"<details><summary>{html.escape(path.relative_to(dump).as_posix())}<span class=soft>{source.count(chr(10))} lines</span>"
                   f"</summary><pre>{html.escape(source[:MAX_KERNEL_CHARS] + cut)}</pre></details>")
    return "".join(out) or "<p class=soft>No dump of the kernels was given.</p>"


def peers(reports):
    """A group of bars for each block, one bar a column, and the goals beside what was reached."""
    out = []
    for r in reports:
        machine, key, threads = r["machine"], r["time"], r["threads"]
        out.append(f"<p class=soft>{html.escape(machine['cpu'])}, {machine['vectors']}, {threads} thread{'s' if threads > 1 else ''}, "
                   f"{'CPU' if key == 'cpu_ms' else 'wall'} time, medians; PyTorch {machine['versions']['torch']}. A bar is there only if the column's "
                   "gradients are right.</p><div class=curves>")
        for block in r["blocks"]:
            rows = [(name, number(c.get(key))) for name, c in block["columns"].items() if c.get("ok")]
            longest = max((t for _, t in rows if t), default=1)
            bars = [f'<svg viewBox="0 0 500 {28 + 18 * len(rows)}" role=img><title>{html.escape(block["what"])}</title><text class=title x=0 y=14>'
                    f'{html.escape(block["block"].replace("_", " "))}<tspan dx=6 fill-opacity=.6>ms</tspan></text>']
            for k, (name, t) in enumerate(rows):
                y, long = 24 + 18 * k, 340 * (t or 0) / longest
                bars.append(f'<text x=60 y={y + 10} text-anchor=end>{html.escape(name)}</text><rect class={"ff" if name == "heddle" else "ef"} x=68 y={y} width="{long:.1f}" height=12 rx=1 />'
                            f'<text x="{74 + long:.1f}" y={y + 10} style="fill:var(--ink)">{milliseconds(t)}</text>')
            out.append("".join(bars) + "</svg>")
        out.append("</div>")
        if r["goals"]:
            out.append("<div class=scroll><table><tr><th>goal<th>block<th>what<th>asked<th>reached<th>")
            words = {True: "met", False: "missed", None: "not measured"}
            out += [f"<tr><td>{g['name']}<td>{html.escape(g['block'])}<td>{html.escape(g['what'])}<td>{text(number(g['goal']))}<td>{text(number(g['value']))}<td>{words[g['met']]}"
                    for g in r["goals"]]
            out.append("</table></div>")
    return "<h2>Beside peers</h2>" + "".join(out) if out else ""


def figures(bench, eager, fused):
    whole = bench.get("iteration") or {}
    e, f = number(whole.get("eager_ms")), number(whole.get("fused_ms"))
    if e is None and f is None:
        e, f = eager.ms, fused.ms
    stages = bench.get("stages", [])
    whole = [s for s in stages if s.get("name") == "iteration"] or stages  # the whole step, where it was measured as one
    ops, launches = (sum(number(s.get(k)) or 0 for s in whole) for k in ("ops_eager", "launches_fused"))
    worst = max((number(s.get(k)) or 0 for s in stages for k in ("max_rel_err_out", "max_rel_err_grad")), default=None)
    facts = [(times(ratio(e, f)), f"one iteration: {milliseconds(e)} ms eager, {milliseconds(f)} ms fused"),
             (f"{ops:.0f} → {launches:.0f}" if stages else NONE, "operations eager, kernel launches fused"),
             (text(worst, "{:.0e}"), "largest relative error of any output or gradient"),
             (f"{text(number(bench.get('cold_s')), '{:.1f}')} s", "to compile everything, cold"),
             (text(ratio(number(bench.get("warm_s")), 1e-3), "{:.0f}") + " ms", "to start again with kernels in memory"),
             (text(fused.held_out, "{:.2f}") + " dB", f"held-out PSNR fused; {text(eager.held_out, '{:.2f}')} dB eager")]
    return "<div class=figures>" + "".join(f"<div class=figure><b>{a}</b><span>{b}</span></div>" for a, b in facts if NONE not in a) + "</div>"


def page(bench, eager, fused, dump, reports=()):
    facts = [f"{bench[k]}" if k == "device" else f"{k} {bench[k]}" for k in ("device", "scale", "threads") if k in bench]
    stages = stage_table(bench) if stage_rows(bench) else "<p class=soft>No timings were given.</p>"
    return f"""<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1"><meta name=color-scheme content="light dark">
<title>heddle: {html.escape(str(bench.get("model", "report")))}</title><style>{STYLE}</style>
<main><h1>{html.escape(str(bench.get("model", "model")))}, eager and fused</h1>
<p class=sub>{html.escape(" · ".join(facts + [datetime.date.today().isoformat()]))}</p>
{figures(bench, eager, fused)}
<h2>Stage by stage</h2><p class=soft>Forward and backward of each stage, the same inputs for both. Errors are relative, against eager in float64.</p>
<p class=key><span><i style="height:7px;background:var(--eager)"></i>eager</span><span><i style="height:7px;background:var(--fused)"></i>fused</span></p>
{stages}
{peers(reports)}
<h2>Training</h2>{curves(eager, fused)}
<h2>Held-out views</h2>{pictures(eager, fused)}
<h2>Kernels</h2><p class=soft>Generated for this model, in the order of the dump.</p>{kernels(dump)}
<footer>Written by tools/report.py from the logs in out/.</footer></main></html>
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("bench", "eager", "fused", "dump"):
        parser.add_argument(f"--{name}", type=pathlib.Path)
    parser.add_argument("--peers", type=pathlib.Path, nargs="*", default=[])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/report.html"))
    parser.add_argument("--table", action="store_true", help="print the stage table as well")
    o = parser.parse_args()
    bench = read_json(o.bench) or {}
    o.out.parent.mkdir(parents=True, exist_ok=True)
    o.out.write_text(page(bench, Training(o.eager), Training(o.fused), o.dump, [r for r in map(read_json, o.peers) if r]))
    if o.table:
        print_table(bench)


if __name__ == "__main__":
    main()
