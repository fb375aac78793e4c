# SPDX-License-Identifier: Apache-2.0
"""Checks of the sources themselves.

usage: lint.py includes|format|files|calls
       lint.py docs TOOZFS

Prints every finding and exits with 1 if there is one, with 77 if the check cannot be made here.
"""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = ["fs", "coord", "drivers", "mount-helpers", "tests", "docs", ".ci"]
LINES_MAX = 1000
FUNCTION_LINES_MAX = 70
SKIP = 77


def sources(*folders):
    """Paths below ROOT of all files in the folders, and of those in ROOT itself for "."."""
    for folder in folders:
        for path, names, files in os.walk(os.path.join(ROOT, folder)):
            names[:] = [n for n in names if n != "__pycache__" and not n.startswith("build")]
            for name in files:
                yield os.path.relpath(os.path.join(path, name), ROOT)


def text(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


def c_sources(*folders):
    return sorted(path for path in sources(*folders) if path.endswith((".c", ".h")))


# ---- includes ----

def may_include(path, name):
    """docs/architecture.md, "Who may include whom"."""
    top, parts = path.split("/")[0], path.split("/")
    target = name.split("/")[0]
    if top == "tests":
        return True
    if top == "mount-helpers":
        return target == top or target not in FOLDERS and not name.startswith(("uv", "fuse"))
    if target == "tests":
        return False
    if name in ("uv.h", "uv/unix.h"):
        return path == "coord/loop_uv.c" or top == "drivers"
    if name.startswith("fuse"):
        return top == "fs"
    if top == "coord":
        return target not in ("fs", "drivers")
    if top == "fs":
        return target != "drivers" and target not in ("json-c", "msgpack", "msgpack.h")
    if top == "drivers" and target == "drivers":
        return name.split("/")[1] in ("common", parts[1])
    return target != "fs"


def includes():
    for path in c_sources("fs", "coord", "drivers", "mount-helpers"):
        for number, line in enumerate(text(path).splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
            if match and not may_include(path, match[1]):
                yield f"{path}:{number}: must not include {match[1]}"
            if match and line.count('"') and "/" not in match[1]:
                yield f"{path}:{number}: include {match[1]} by its path from the top"


# ---- format ----

def formatted():
    program = shutil.which("clang-format-14")
    if not program:
        print("no clang-format-14")
        sys.exit(SKIP)
    paths = c_sources("fs", "coord", "drivers", "mount-helpers", "tests")
    result = subprocess.run([program, "--dry-run", "-Werror", "--ferror-limit=1", *paths], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    for line in result.stderr.splitlines():
        if ": error:" in line:
            yield line


# ---- files ----

def functions(path):
    """(first line, lines) of each function: in this style a body is between braces in column 0."""
    start = None
    for number, line in enumerate(text(path).splitlines(), 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            yield start, number - start + 1
            start = None


def is_program(path):
    with open(os.path.join(ROOT, path), "rb") as f:
        return f.read(2) == b"#!"


def files():
    for path in sorted(sources(*FOLDERS)):
        name = os.path.basename(path)
        code = name.endswith((".c", ".h", ".py", ".sh")) or is_program(path)
        if not code:
            continue
        content = text(path)
        if "SPDX-License-Identifier: Apache-2.0" not in "\n".join(content.splitlines()[:3]):
            yield f"{path}: no SPDX line at its beginning"
        if content.count("\n") > LINES_MAX:
            yield f"{path}: longer than {LINES_MAX} lines"
        if ROOT in content:
            yield f"{path}: names this checkout, {ROOT}"
        for number, lines in functions(path) if name.endswith(".c") else []:
            if lines > FUNCTION_LINES_MAX:
                yield f"{path}:{number}: a function of {lines} lines"


# ---- calls ----

def without_comments(content):
    """Comments and strings become blanks, line ends stay."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"'
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), content, flags=re.S)


def calls():
    """Nothing sleeps, but a driver's worker may for some milliseconds; only main ends the program."""
    for path in c_sources("fs", "coord", "drivers"):
        sleeping = r"u?sleep" if path.startswith("drivers/") else r"u?sleep|(clock_)?nanosleep"
        for number, line in enumerate(without_comments(text(path)).splitlines(), 1):
            match = re.search(rf"\b({sleeping})\s*\(", line)
            if match:
                yield f"{path}:{number}: calls {match[1]}"
            match = re.search(r"\b(exit|_exit|quick_exit)\s*\(", line)
            if match and path != "fs/main.c":
                yield f"{path}:{number}: calls {match[1]}"


# ---- docs ----

def drivers(program):
    """{driver: {option: default or None}} as toozfs --drivers prints them."""
    output = subprocess.run([program, "--drivers"], capture_output=True, text=True, check=True,
                            timeout=30).stdout
    found, options = {}, None
    for line in output.splitlines():
        if re.match(r"\S.*:", line):
            options = found.setdefault(line.split(":")[0], {})
        match = re.match(r"    (\w+)=[A-Z]+(?: \[(.*?)\])?  ", line)
        if match:
            options[match[1]] = match[2]
    return found


def documented(driver):
    """The same from the page's section "Options": | `option` | default | meaning |"""
    path = f"docs/drivers/{driver}.md"
    if not os.path.exists(os.path.join(ROOT, path)):
        return None
    section = re.search(r"^## Options\n(.*?)(?=^## |\Z)", text(path), re.M | re.S)
    found = {}
    for match in re.finditer(r"^\| *`(\w+)=?[^`|]*` *\| *([^|]*?) *\|", section[1] if section else "",
                             re.M):
        found[match[1]] = match[2].strip("`")
    return found


def named_tests():
    """Those that docs/guarantees.md names: `FILE: Class.test`, and `Class.test` of the same file; `direct: NAME`."""
    for row in re.findall(r"^\|.*\| *(`.*) *\|$", text("docs/guarantees.md"), re.M):
        content = ""
        for path, name in re.findall(r"`(?:(\S+): )?([\w.-]+)`", row):
            if path == "direct":
                if f'{{"{name}", test_' not in text("tests/conformance/direct.c"):
                    yield f"docs/guarantees.md: direct has no test {name}"
            elif "." in name:
                content = text(f"tests/{path}") if path else content
                case, test = name.split(".")
                if not re.search(rf"^class {case}\b", content, re.M) or f"def {test}(" not in content:
                    yield f"docs/guarantees.md: there is no test {name}"


def docs(program):
    yield from named_tests()
    known = drivers(program)
    common = known.pop("every driver")
    for driver, options in known.items():
        page = documented(driver)
        if page is None:
            yield f"docs/drivers/{driver}.md: is not there"
            continue
        for option, default in options.items():
            if option not in page:
                yield f"docs/drivers/{driver}.md: option {option} is not in a table"
            elif default is not None and page[option] != default:
                yield f"docs/drivers/{driver}.md: {option} is {default} by default, not {page[option]}"
        for option in page:
            if option not in options and option not in common:
                yield f"docs/drivers/{driver}.md: the driver has no option {option}"
    for name in os.listdir(os.path.join(ROOT, "docs", "drivers")):
        if name.endswith(".md") and name[:-3] not in known:
            yield f"docs/drivers/{name}: there is no such driver"


CHECKS = {"includes": includes, "format": formatted, "files": files, "calls": calls, "docs": docs}


def main():
    findings = list(CHECKS[sys.argv[1]](*sys.argv[2:]))
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
