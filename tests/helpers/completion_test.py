# SPDX-License-Identifier: Apache-2.0
"""The completions for bash offer what the programs know, at the places where it belongs."""
import os
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOZFS, TOOZ_RUN = os.environ.get("TOOZFS", ""), os.environ.get("TOOZ_RUN", "")
SCRIPT = """
set -u
source "$1" || exit
function=$2 COMP_CWORD=$3
shift 3
COMP_WORDS=("$@") COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
"$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
[ ${#COMPREPLY[@]} = 0 ] || printf '%s\\n' "${COMPREPLY[@]}"
"""


def words(line):
    """As bash breaks it for a completion: at blanks, and = and : are words of their own."""
    found = []
    for word in line.split(" "):
        found += re.findall(r"[=:]+|[^=:]+", word) or [""]
    return found


class Case(unittest.TestCase):
    name = function = program = ""

    def offered(self, line):
        """What is offered at the end of the line."""
        found = words(line)
        found[0] = self.program
        done = subprocess.run(
            ["bash", "--norc", "-c", SCRIPT, "bash", f"{ROOT}/mount-helpers/completions/{self.name}",
             self.function, str(len(found) - 1), *found],
            capture_output=True, text=True, check=False, timeout=60, cwd=self.directory)
        self.assertEqual((done.returncode, done.stderr), (0, ""), line)
        return done.stdout.splitlines()

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        for path in ("locks/nightly", "locks/hourly", "groups/web/host-1"):
            path = os.path.join(self.directory, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb"):
                pass


class Mount(Case):
    name, function, program = "mount.tooz", "_mount_tooz", TOOZFS

    def test_options_of_the_command(self):
        self.assertEqual(self.offered("mount.tooz --dr"), ["--drivers"])
        self.assertIn("-f", self.offered("mount.tooz -"))

    def test_known_by_the_program(self):
        """Every option that --help and --drivers name is offered, and no other."""
        known = subprocess.run([TOOZFS, "--drivers"], capture_output=True, text=True, check=True)
        known = set(re.findall(r"^    (\w+=)[A-Z]", known.stdout, re.M))
        text = subprocess.run([TOOZFS, "--help"], capture_output=True, text=True, check=True).stdout
        for line in re.findall(r"^    (\w+=?.*?)  ", text, re.M):
            known |= {word.strip(",") for word in re.findall(r"\b\w+=|^\w+$", line)}
        self.assertIn("member=", known)
        self.assertIn("allow_other", known)
        self.assertEqual(set(self.offered("mount.tooz none /mnt -o ")), known)

    def test_one_of_several_options(self):
        self.assertEqual(self.offered("mount.tooz none /mnt -o on_l"), ["on_loss="])
        self.assertEqual(self.offered("mount.tooz none /mnt -o ro,on_l"), ["ro,on_loss="])
        # bash replaces what is behind the last "=".
        self.assertEqual(self.offered("mount.tooz none /mnt -o member=x,on_l"), ["x,on_loss="])

    def test_values(self):
        self.assertEqual(self.offered("mount.tooz none /mnt -o on_loss=t"), ["term"])
        self.assertEqual(sorted(self.offered("mount.tooz none /mnt -o on_loss=")),
                         ["hup", "kill", "none", "term"])
        self.assertEqual(self.offered("mount.tooz none /mnt -o ro,uid=roo"), ["root"])
        self.assertIn("CAUSAL", self.offered("mount.tooz none /mnt -o require=CA"))
        self.assertEqual(self.offered("mount.tooz none /mnt -o credentials=locks/n"), ["locks/nightly"])
        self.assertEqual(self.offered("mount.tooz none /mnt -o member="), [])

    def test_url_and_directory(self):
        self.assertEqual(self.offered("mount.tooz mem"), ["memory://"])
        self.assertEqual(self.offered("mount.tooz memory:"), ["//"])
        self.assertEqual(self.offered("mount.tooz memory:// lo"), ["locks"])
        self.assertEqual(self.offered("mount.tooz none gr"), ["groups"])


class Run(Case):
    name, function, program = "tooz-run", "_tooz_run", TOOZ_RUN

    def test_options_are_those_of_help(self):
        text = subprocess.run([TOOZ_RUN, "--help"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(set(self.offered("tooz-run --")), set(re.findall(r"--[a-z-]+", text)) - {"--"})
        self.assertEqual(self.offered("tooz-run --sh"), ["--shared"])

    def test_manual_has_them_too(self):
        """The options of docs/tooz-run.md are those of --help, and the exit codes those it prints."""
        with open(f"{ROOT}/docs/tooz-run.md", encoding="utf-8") as f:
            manual = f.read()
        text = subprocess.run([TOOZ_RUN, "--help"], capture_output=True, text=True, check=True).stdout
        table = re.search(r"## Options\n(.*?)\n\n[^|\n]", manual, re.S)[1]
        options = re.findall(r"(-\w), (--[a-z-]+)", text)
        self.assertGreater(len(options), 10)
        for short, long in options:
            self.assertRegex(table, rf"`{short}`, `{long}\b")
        self.assertEqual(set(re.findall(r"--[a-z][a-z-]*", table)), {long for _, long in options})
        codes = re.search(r"## Exit codes\n(.*?)\n\n[^|\n]", manual, re.S)[1]
        for code in ("122", "125", "126", "127"):
            self.assertIn(f"| {code} |", codes)
            self.assertIn(code, text)

    def test_files(self):
        self.assertEqual(self.offered("tooz-run -l locks/n"), ["locks/nightly"])
        self.assertEqual(self.offered("tooz-run -n --lock locks/h"), ["locks/hourly"])
        self.assertEqual(self.offered("tooz-run --lock=locks/h"), ["locks/hourly"])
        self.assertEqual(self.offered("tooz-run -m groups/w"), ["groups/web"])
        self.assertEqual(self.offered("tooz-run -w "), [])

    def test_command(self):
        self.assertIn("true", self.offered("tooz-run -l locks/nightly tru"))
        self.assertIn("true", self.offered("tooz-run -l locks/nightly -n -- tru"))
        self.assertIn("true", self.offered("tooz-run -m groups/web/x=1 tru"))
        self.assertEqual(self.offered("tooz-run -l locks/nightly cat -n locks/h"), ["locks/hourly"])
        self.assertEqual(self.offered("tooz-run -l locks/nightly -- cat --lo"), [])


if __name__ == "__main__":
    if not os.access(TOOZFS, os.X_OK):
        print(f"TOOZFS={TOOZFS!r} is no program")
        sys.exit(77)
    unittest.main(verbosity=2)
