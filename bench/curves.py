"""Draws what `heddle bench MODEL --steps N --json FILE` found: the losses eager and fused, and how far each is from eager in float64.

Law: every step is a point, nothing is smoothed. Arguments: the JSON file, the SVG to write.
"""

import json
import math
import pathlib
import sys

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, GAP = 460, 260, 56, 30, 30, 40
RUNS = {"eager": ("#c76b29", 5, 0.45), "fused": ("#1f6f8b", 1.5, 1.0)}  # colour, width, opacity: eager is broad, so that equal runs look equal


def panel(x: int, title: str, lines: dict[str, list[float]]) -> str:
    """Values over steps, on a logarithmic scale; zeros are left out."""
    points = {name: [(k, math.log10(v)) for k, v in enumerate(values) if v > 0] for name, values in lines.items()}
    every = [p for line in points.values() for p in line]
    steps, low, high = max(p[0] for p in every) or 1, min(p[1] for p in every), max(p[1] for p in every)
    high += 0.05 if high == low else 0

    def at(k: float, v: float) -> str:
        return f"{x + LEFT + k / steps * (WIDTH - LEFT):.1f} {TOP + (high - v) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"

    marks = [(m * 10.0**e) for e in range(math.floor(low), math.ceil(high) + 1) for m in ((1, 2, 5) if high - low < 2 else (1,)) if low <= math.log10(m * 10.0**e) <= high]
    out = [f'<text x="{x + LEFT}" y="16" font-weight="600">{title}</text>']
    for m in marks:
        px, py = at(0, math.log10(m)).split()
        out.append(f'<path d="M{px} {py}H{x + WIDTH}" stroke="#8884"/><text x="{x + LEFT - 6}" y="{float(py) + 4:.1f}" text-anchor="end">{m:g}</text>')
    for k in range(0, steps + 1, max(1, round(steps / 5 / 10) * 10)):
        out.append(f'<text x="{at(k, low).split()[0]}" y="{HEIGHT - 8}" text-anchor="middle">{k}</text>')
    for name, line in points.items():
        colour, width, opacity = RUNS[name]
        out.append(f'<path d="M{"L".join(at(*p) for p in line)}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}" stroke-linejoin="round"/>')
    return "".join(out)


def draw(found: dict) -> str:
    loss = {name: [row[0] for row in rows] for name, rows in found["losses"].items()}
    apart = {name: [abs(a - b) / abs(b) for a, b in zip(loss[name], loss["float64"])] for name in RUNS}
    key = "".join(f'<path d="M{LEFT + 90 * k} {HEIGHT + 14}h24" stroke="{c}" stroke-width="{w}" stroke-opacity="{o}"/><text x="{LEFT + 30 + 90 * k}" y="{HEIGHT + 18}">{name}</text>'
                  for k, (name, (c, w, o)) in enumerate(RUNS.items()))
    whole, title = 2 * WIDTH + GAP, f"Loss of {found['model']}, scale {found['scale']}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {HEIGHT + 28}" width="{whole}" font-family="sans-serif" font-size="12" fill="#777">'
            f'{panel(0, title, {n: loss[n] for n in RUNS})}'
            f'{panel(WIDTH + GAP, "Relative distance of the loss from eager in float64", apart)}{key}</svg>\n')


if __name__ == "__main__":
    pathlib.Path(sys.argv[2]).write_text(draw(json.loads(pathlib.Path(sys.argv[1]).read_text())))
