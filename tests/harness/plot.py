"""Line plots in SVG, side by side; readable on light and dark pages, without any library."""

import collections
import math
from html import escape

WIDTH, HEIGHT = 400, 260  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 62, 78, 44, 46  # around its plot; to the right the lines have their names
COLUMNS = 2

STYLE = """
    text { font: 12px system-ui, sans-serif; fill: #57606a; }
    .title { font-size: 13px; font-weight: 600; fill: #1f2328; }
    .axis { stroke: #8c959f; }
    .grid { stroke: #d0d7de; stroke-width: .6; }
    .line { fill: none; stroke-width: 2; }
    .s0 { stroke: #0969da; } .n0 { fill: #0969da; stroke: none; }
    .s1 { stroke: #bc4c00; } .n1 { fill: #bc4c00; stroke: none; }
    text.n0, text.n1 { font-weight: 600; }
    @media (prefers-color-scheme: dark) {
        text { fill: #9198a1; } .title { fill: #f0f6fc; }
        .axis { stroke: #656c76; } .grid { stroke: #3d444d; }
        .s0 { stroke: #58a6ff; } .n0 { fill: #58a6ff; }
        .s1 { stroke: #f0883e; } .n1 { fill: #f0883e; }
    }
"""

# lines: name -> values, one for each of the positions; log_x and log_y: axes in powers.
Panel = collections.namedtuple("Panel", "title x_label y_label positions lines log_x log_y", defaults=(False, False))


def draw(panels):
    """Returns the SVG document."""
    rows = math.ceil(len(panels) / COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape('; '.join(panel.title for panel in panels))}</title>",
        f"<style>{STYLE}</style>",
    ]
    for number, panel in enumerate(panels):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *draw_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def draw_panel(panel):
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    to_x = scale(panel.positions, LEFT, right, panel.log_x)
    ticks = y_ticks([value for values in panel.lines.values() for value in values], panel.log_y)
    to_y = scale(ticks, bottom, TOP, panel.log_y)
    yield text(LEFT, 18, panel.title, "start", "title")
    yield text(LEFT, 34, panel.y_label, "start")
    for tick in ticks:
        yield f'<line class="grid" x1="{LEFT}" y1="{to_y(tick):.1f}" x2="{right}" y2="{to_y(tick):.1f}"/>'
        yield text(LEFT - 6, to_y(tick) + 4, number_text(tick), "end")
    yield f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    for position in panel.positions:
        yield text(to_x(position), bottom + 17, number_text(position), "middle")
    yield text((LEFT + right) / 2, bottom + 36, panel.x_label, "middle")
    places = name_places({name: to_y(values[-1]) for name, values in panel.lines.items()})
    for index, (name, values) in enumerate(panel.lines.items()):
        points = [(to_x(position), to_y(value)) for position, value in zip(panel.positions, values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline class="line s{index}" points="{path}"/>'
        yield from (f'<circle class="n{index}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
        yield text(right + 8, places[name] + 4, name, "start", f"n{index}")


def scale(values, start, end, is_log):
    """Returns a function from values to coordinates."""
    measure = math.log if is_log else float
    low, high = measure(min(values)), measure(max(values))
    return lambda value: start + (measure(value) - low) / (high - low) * (end - start)


def y_ticks(values, is_log):
    """Returns round numbers that enclose the values, from 0 on a linear axis."""
    top = max(values)
    if is_log:
        low = math.floor(math.log10(min(values)))
        return [10**power for power in range(low, math.ceil(math.log10(top)) + 1)]
    step = 10 ** math.floor(math.log10(top / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if step * factor * 4 >= top)
    return [step * number for number in range(math.ceil(top / step) + 1)]


def name_places(places):
    """Moves the names of lines apart if they would overlap."""
    placed, last = {}, None
    for name in sorted(places, key=places.get):
        last = places[name] if last is None else max(places[name], last + 15)
        placed[name] = last
    return placed


def number_text(value):
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:g}"


def text(x, y, words, anchor, name=""):
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
