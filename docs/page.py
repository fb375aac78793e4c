# SPDX-License-Identifier: Apache-2.0
"""One manual page from one page of docs/, by way of lowdown(1).

usage: page.py LOWDOWN VERSION PAGES SOURCE OUTPUT

PAGES is the file that lists the pages, SOURCE is named as there, by its path below the folder of PAGES.

What lowdown cannot do is done here. Before it: the parts come into the order of a manual (NAME, SYNOPSIS,
DESCRIPTION, the rest), links between the sources become references to their pages, and tables whose first
column is code, or whose last one has no heading, become lists. After it: the other tables get columns that fit
80 characters, code becomes bold with a minus that can be copied, and SEE ALSO is added.
"""
import os
import re
import subprocess
import sys

TABLE_WIDTH = 68  # of 80, less the margins of a page, its text and the frame
GAP = 3           # between columns, with their line
BAR = "\ue000"    # stands for \| in a table, which lowdown would show with its backslash
FENCE = "```"


class Page:
    """A line of PAGES."""

    def __init__(self, line, folder):
        fields = [field.strip() for field in line.split("|")]
        self.source, names, self.section, self.whatis, see = fields
        self.path = os.path.join(folder, self.source)
        self.names = re.split(", *", names)
        self.see = re.split(", *", see) if see else []

    def reference(self):
        return f"{self.names[0]}({self.section})"


def read_pages(path):
    """Those whose source is there."""
    folder = os.path.dirname(os.path.abspath(path))
    pages = [Page(line, folder) for line in read(path).splitlines() if not line.startswith("#")]
    return [page for page in pages if os.path.exists(page.path)]


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


# ---- Before lowdown ----

def heading(text):
    """In capitals, but not what is a file or an option."""
    return " ".join(word if "/" in word or word[:1] in "(-." else word.upper() for word in text.split())


def pieces(text):
    """The text in turns: outside of fenced code, and fenced code."""
    return re.split(rf"(^{FENCE}.*?^{FENCE}\n)", text, flags=re.M | re.S)


def outside(text, change):
    """change() applied to all that is not fenced code."""
    parts = pieces(text)
    parts[::2] = map(change, parts[::2])
    return "".join(parts)


def slug(title):
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def section_of(path, anchor):
    for title in re.findall(r"^##+ (.*)$", read(path), re.M):
        if slug(title) == anchor:
            return title
    raise SystemExit(f"{path}: has no section {anchor}")


def references(text, page, pages):
    """[text](file.md#section) as a reference to the page; what has none keeps the file's name."""
    folder = os.path.dirname(page.path)

    def replace(match):
        label, target = match[1], match[2]
        if "://" in target:
            return match[0]
        file, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(folder, file)) if file else page.path
        found = next((other for other in pages if other.path == path), None)
        if found:
            new = f"**{found.names[0]}**({found.section})"
        elif os.path.isdir(path):
            new = "**tooz-**_DRIVER_(5)"
        else:
            new = "docs/" + os.path.relpath(path, os.path.dirname(os.path.abspath(__file__)))
        if anchor:
            new += f', "{heading(section_of(path, anchor))}"'
        same = label in (file, os.path.basename(file)) or found and label in found.names
        return new if same else f"{label} ({new})"
    return outside(text, lambda part: re.sub(r"\[([^]\[]*)\]\(([^)\s]+)\)", replace, part))


def cells(row):
    return [cell.strip().replace("\\|", BAR) for cell in re.split(r"(?<!\\)\|", row.strip()[1:-1])]


def as_list(rows):
    """A term for each row; None: the table has to stay one."""
    head, rows = rows[0], rows[2:]
    if head[-1] and sum(row[0].startswith("`") for row in rows) <= len(rows) / 2:
        return None
    if len(head) == 3 and head[1] == "default":
        def definition(row):
            return f"{row[2].rstrip('.')}. Default: {row[1]}." if row[1] else row[2]
    elif len(head) == 2:
        def definition(row):
            return row[1]
    else:
        return None
    return "\n".join(f"{row[0]}\n: {definition(row)}\n" for row in rows)


def widths(rows):
    """Of the columns, in characters, such that the table fits; the least of each is its longest word."""
    plain = [[re.sub(r"[`*]|\\(?=\W)", "", cell) for cell in row] for row in [rows[0], *rows[2:]]]
    most = [max(map(len, column)) for column in zip(*plain)]
    least = [max(len(word) for cell in column for word in [*cell.split(), ""]) for column in zip(*plain)]
    left = TABLE_WIDTH - GAP * (len(most) - 1)
    if sum(most) <= left:
        return most
    extra = left - sum(least)
    wanted = sum(most) - sum(least)
    return [a + max(0, extra) * (b - a) // wanted for a, b in zip(least, most)]


def tables(text, found):
    """Tables as lists, where that reads better; appends the widths of those that stay to found."""
    def replace(match):
        rows = [cells(row) for row in match[0].splitlines()]
        terms = as_list(rows)
        if terms:
            return terms
        found.append(widths(rows))
        return re.sub(r"\\\|", BAR, match[0])
    return outside(text, lambda part: re.sub(r"(?:^\|.*\|\n)+", replace, part, flags=re.M))


def split_synopsis(text):
    """(the first block of code, what is left)"""
    match = re.search(rf"^{FENCE}\n.*?^{FENCE}\n|(?:^    [^\n]*\n)+", text, re.M | re.S)
    return (match[0], text[:match.start()] + text[match.end():]) if match else ("", text)


def sections(text):
    """[title, body] of each "## title", of what comes before with the title ""; headings move up by one."""
    found, fenced = [["", ""]], False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith(FENCE)
        level = 0 if fenced else len(re.match("#*", line)[0])
        if level == 2:
            found.append([line[2:].strip(), ""])
        elif level != 1:
            found[-1][1] += line[level > 0:]
    return found


def arranged(text):
    """The parts in the order of a manual, with its headings."""
    (_, intro), *rest = sections(text)
    if rest and rest[0][0] == "Synopsis":
        synopsis, more = split_synopsis(rest.pop(0)[1])
        intro += "\n" + more
    else:
        synopsis, intro = split_synopsis(intro)
    parts = [["SYNOPSIS", synopsis]] if synopsis else []
    parts += [["DESCRIPTION", intro], *([heading(name), body] for name, body in rest)]
    return "".join(f"# {name}\n\n{body}\n" for name, body in parts)


# ---- After it ----

def copyable(text):
    """The minus of code as a minus, and its quotes as they are typed."""
    for typeset, typed in (("\\(cq", "\\(aq"), ("\\(oq", "\\(ga")):
        text = text.replace(typeset, typed)
    return re.sub(r"(?<!\\)-", r"\\-", text)


def code(text):
    text = re.sub(r"(?<=^\.EX\n).*?(?=^\.EE$)", lambda m: copyable(m[0]), text, flags=re.M | re.S)
    return re.sub(r"\\fC(.*?)(?=\\f)", lambda m: "\\fB" + copyable(m[1]), text, flags=re.S)


def fitted(text, found):
    """Each table with its own widths, left aligned."""
    left = list(found)

    def replace(match):
        tab = re.search(r"tab\(.\)", match[0])
        formats = [f"lw({width}n)" for width in left.pop(0)]
        heads = [f.replace("l", "lb", 1) for f in formats]
        return f".TS\n{tab[0] if tab else ''} allbox;\n{' '.join(heads)}\n{' '.join(formats)}.\n"
    text = re.sub(r"^\.TS\n.*?\.\n", replace, text, flags=re.M | re.S)
    if left:
        raise SystemExit("tables got lost")
    return text.replace("\n.TE\n", "\n.TE\n.sp\n")


def listed(text):
    """Lists of definitions as manuals have them."""
    wide = r"\.if n \\\n\.sp -1v\n\.if t \\\n\.sp -0\.25v\n\.IP \"\" \w+\n"
    return re.sub(rf"(?:^\.[LP]P\n)?^(.*)\n{wide}", r".TP 8\n\1\n", text, flags=re.M)


def see_also(page, pages):
    names = [other.reference() for other in pages if other is not page] + page.see
    names.sort(key=lambda name: (name[-2], name))
    lines = [r"\fB" + name.replace("-", r"\-").replace("(", r"\fR(") for name in names]
    return ".SH SEE ALSO\n" + ",\n".join(lines) + "\n"


def title(page, version):
    """.TH is ours, with all that a header and a footer need; ragged lines, and no word is cut."""
    names = ", ".join(page.names).replace("-", r"\-")
    return ("'\\\" t\n"
            '.\\" -*- mode: troff; coding: utf-8 -*-\n'
            f'.TH "{page.names[0]}" "{page.section}" "" "toozfs {version}"\n'
            f".nr HY 0\n.nh\n.ad l\n.SH NAME\n{names} \\- {page.whatis}\n")


def main():
    lowdown, version, list_file, source, output = sys.argv[1:]
    pages = read_pages(list_file)
    page = next(page for page in pages if page.source == source)
    found = []
    text = arranged(tables(references(read(page.path), page, pages), found))
    roff = subprocess.run([lowdown, "-s", "-Tman", "--out-no-smarty", "--parse-no-intraemph"], input=text, encoding="utf-8",
                          stdout=subprocess.PIPE, check=True).stdout
    body = re.split(r"^\.TH .*\n", roff, maxsplit=1, flags=re.M)[1]
    body = fitted(listed(code(body)), found).replace(BAR, "|")
    with open(output, "w", encoding="utf-8") as f:
        f.write(title(page, version) + body + see_also(page, pages))


if __name__ == "__main__":
    main()
