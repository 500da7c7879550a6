"""Tables of text."""

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

GAP = 2  # between columns


class Table:
    """A table that fits any width: no number is cropped and no word broken.

    columns: headers, those of numbers begin with ">"; the first column names its row. What does not fit side by side
    stands below, with the names again; where nothing fits beside the names, every row becomes lines of its own. A
    column that says the same in every row becomes a line under the table, an empty one goes. caption: one more line.
    """

    def __init__(self, title, *columns):
        self.title, self.caption = title, ""
        self.headers, self.numeric = [c.lstrip(">") for c in columns], [c.startswith(">") for c in columns]
        self.rows, self.sections = [], set()

    def add_row(self, *cells, total=False):
        """Cells: strings or Text. total: a sum of other rows, empty where there is nothing to add up."""
        self.rows.append(([cell if isinstance(cell, Text) else Text(cell) for cell in cells], total))

    def add_section(self):
        """A line behind the row that was added last."""
        self.sections.add(len(self.rows) - 1)

    def _columns(self):
        """(columns to show, a line that stands for the others)."""
        shown, said = [0], []
        for n, header in enumerate(self.headers[1:], 1):
            own = [cells[n].plain for cells, total in self.rows if not total]
            sums = {cells[n].plain for cells, total in self.rows if total} - {""}
            same = len(set(own)) == 1 and sums <= set(own)
            if not same or (len(own) == 1 and own[0]):
                shown.append(n)
            elif own[0]:
                said.append(f"{header} {own[0]}")
        return shown, said and f"in every row: {', '.join(said)}"

    def _widths(self, n):
        """The least and the most that a column can use; numbers and their headers stay in one piece."""
        texts = [self.headers[n], *(cells[n].plain for cells, _ in self.rows)]
        most = max(Text(text).cell_len for text in texts)
        words = (Text(word).cell_len for text in texts for word in text.split())
        return (most if self.numeric[n] else max(words, default=0)), most

    def __rich_console__(self, console, options):
        shown, said = self._columns()
        widths = {n: self._widths(n) for n in shown}
        yield Text(self.title, style="bold")
        room = options.max_width
        if max(widths[0][0] + GAP + widths[n][0] if n else widths[0][0] for n in shown) > room:
            yield from self._lines(shown[1:])
        else:
            block, rest = self._block(shown[1:], widths, room)
            yield self._part(block)
            while rest:
                block, rest = self._block(rest, widths, room)
                yield self._part(block)
        for line in filter(None, (said, self.caption)):
            yield Text(line)
        yield ""

    def _block(self, rest, widths, room):
        """({column: width} of the first column and as many others as there is room for, the columns that are left)."""
        block, used = {0: widths[0][0]}, widths[0][0]
        for n in rest:
            if used + GAP + widths[n][0] > room:
                break
            block[n] = widths[n][0]
            used += GAP + widths[n][0]
        for _ in range(room - used):
            n = max(block, key=lambda n: widths[n][1] - block[n])
            if block[n] >= widths[n][1]:
                break
            block[n] += 1
        return block, rest[len(block) - 1 :]

    def _lines(self, shown):
        for cells, _ in self.rows:
            yield cells[0]
            for n in shown:
                if cells[n].plain:
                    yield Text.assemble(f"  {self.headers[n]} ", cells[n])

    def _part(self, block):
        part = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True, header_style="")
        for n, width in block.items():
            justify = "right" if self.numeric[n] else "left"
            part.add_column(Text(self.headers[n]), justify=justify, width=width, overflow="fold")
        for number, (cells, total) in enumerate(self.rows):
            part.add_row(*(cells[n] for n in block), style="dim" if total else None)
            if number in self.sections:
                part.add_section()
        return part
