# SPDX-License-Identifier: Apache-2.0
"""Checks of the manual pages as they were built.

usage: man.py TOOZFS PAGE...

Prints every finding and exits with 1 if there is one, with 77 if the programs that show manuals are missing.
"""
import os
import re
import shutil
import subprocess
import sys

import lint

ENV = dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80", MANROFFSEQ="", MANPAGER="cat", MANOPT="")
ENV.pop("MAN_KEEP_FORMATTING", None)
GROFF = ["groff", "-Tutf8", "-k", "-t", "-man", "-ww", "-P-c", "-rLL=78n", "-rLT=78n"]


def run(*argv):
    return subprocess.run(argv, capture_output=True, encoding="utf-8", env=ENV, check=False, timeout=60)


def listed():
    """[(source, names, section)] of docs/pages, those whose source is there."""
    found = []
    for line in lint.text("docs/pages").splitlines():
        if line.startswith("#"):
            continue
        source, names, section = [x.strip() for x in line.split("|")][:3]
        if os.path.exists(os.path.join(lint.ROOT, "docs", source)):
            found.append((source, re.split(", *", names), section))
    return found


class Page:
    def __init__(self, path):
        self.path = path
        self.name, self.section = os.path.basename(path).rsplit(".", 1)
        with open(path, encoding="utf-8") as f:
            self.source = f.read()
        shown = run("man", "--warnings", "-E", "UTF-8", "-l", path)
        typeset = run(*GROFF, path)
        self.warnings = [*shown.stderr.splitlines(), *typeset.stderr.splitlines()]
        # What groff writes has each bold letter twice, with a backspace.
        self.text = re.sub(".\b", "", shown.stdout)

    def sections(self):
        """{heading: what stands under it}"""
        parts = re.split(r"^(\S.*)\n", self.text, flags=re.M)
        return dict(zip(parts[1::2], parts[2::2]))

    def terms(self):
        """The names of the options that are explained, each as the term of a list."""
        section = re.search(r"^\.SH\nOPTIONS\b.*?(?=^\.SH)", self.source, re.M | re.S)
        terms = re.findall(r"^\.TP.*\n(.*)$", section[0] if section else "", re.M)
        return [name for term in terms for name in re.findall(r"\\fB(\w+)", term)]


# ---- What a page has to be ----

def rendering(page):
    yield from page.warnings
    for line in page.text.splitlines():
        if line.lstrip()[:1] in "┌├│└" and len(line) > 80 and line.endswith(("┐", "┤", "│", "┘")):
            yield "a table is wider than 80 columns: " + line
    for leftover in ("](", "```", "\ue000", ".TS", "T{", "**"):
        if leftover in page.text:
            yield f"shows {leftover!r}"


def parts(page, names):
    lines = [line for line in page.text.splitlines() if line]
    head = f"{page.name}({page.section})"
    if not (lines[0].startswith(head) and lines[0].endswith(head)):
        yield f"has another header than {head}: {lines[0]}"
    if not re.match(rf"toozfs \d.* {re.escape(head)}$", lines[-1]):
        yield f"has another footer: {lines[-1]}"
    headings = list(page.sections())[1:-1]
    wanted = ["NAME"] + (["SYNOPSIS"] if page.section in "158" else [])
    if headings[:len(wanted)] != wanted or headings[-1] != "SEE ALSO":
        yield f"has the sections {headings}"
    whatis = run("lexgrog", page.path)
    found = re.findall(r': "(\S+) - \S', whatis.stdout)
    if whatis.returncode or found != names:
        yield f"whatis finds {found}, not {names}"


def references(page, known):
    for name, section in re.findall(r"\b(tooz-\w+|mount\.tooz)\((\d)\)", page.text):
        if (name, section) not in known and name != "tooz-DRIVER":
            yield f"names {name}({section}), which there is not"


# ---- Options ----

def own_options():
    """Of mount.tooz, from the table that parses them."""
    table = re.search(r"own_options\[\] = \{\n(.*?)^\};", lint.text("fs/options.c"), re.M | re.S)
    return re.findall(r'\{"(\w+)", TAKES', table[1])


def run_options():
    """Of tooz-run, likewise."""
    table = re.search(r"\{\"lock\", .*?\};", lint.text("mount-helpers/run/main.c"), re.S)
    return re.findall(r'\{"([\w-]+)", ', table[0])


def long_options(page):
    for name in run_options():
        if not re.search(rf"\\fB--{name}\b", page.source.replace("\\-", "-")):
            yield f"does not explain --{name}"


def options(page, drivers):
    """drivers: as lint.drivers() gives them; a page of a driver that is not built cannot be checked."""
    explained = set(page.terms())
    if page.name == "mount.tooz":
        must = {*own_options(), *drivers["every driver"]}
        may = must.union(*drivers.values())
        missing = {name for name in must
                   if not re.search(rf"\\fB(?:\\-o )?{name}(?:=[^\\]*)?\\fR", page.source)}
    else:
        must = set(drivers.get(page.name.split("-")[1], explained))
        may = {*must, *drivers["every driver"]}
        missing = must - explained
    for name in sorted(missing):
        yield f"does not explain the option {name}"
    for name in sorted(explained - may):
        yield f"explains {name}, which is no option"
    if must and not explained:
        yield "explains no options"


def check(program, paths):
    pages = {(page.name, page.section): page for page in map(Page, paths)}
    drivers = lint.drivers(program)
    wanted = {(names[0], section): names for _, names, section in listed()}
    for name, section in set(wanted) ^ set(pages):
        yield f"docs/pages: {name}({section}) is listed but not built, or built but not listed"
    sources = [source for source, _, _ in listed()]
    for name in os.listdir(os.path.join(lint.ROOT, "docs", "drivers")):
        if "drivers/" + name not in sources:
            yield f"docs/pages: has no line for drivers/{name}"
    for key in sorted(set(wanted) & set(pages)):
        page = pages[key]
        findings = [*rendering(page), *parts(page, wanted[key]), *references(page, wanted)]
        if page.name == "mount.tooz" or page.section == "5":
            findings += options(page, drivers)
        elif page.name == "tooz-run":
            findings += long_options(page)
        for finding in findings:
            yield f"{page.name}({page.section}): {finding}"


def main():
    for program in ("man", "groff", "lexgrog"):
        if not shutil.which(program):
            print(f"no {program}")
            return lint.SKIP
    findings = list(check(sys.argv[1], sys.argv[2:]))
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
