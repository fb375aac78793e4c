# SPDX-License-Identifier: Apache-2.0
"""systemd understands the example units, all of each."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UNITS = os.path.join(ROOT, "mount-helpers", "systemd")
TOOZ_RUN = os.environ.get("TOOZ_RUN", "")


class Units(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.names = sorted(os.listdir(UNITS))
        for name in self.names:
            with open(os.path.join(UNITS, name), encoding="ascii") as f:
                self.write(name, f.read())

    def write(self, name, text):
        """With programs that are there; that of tooz-run is the one that was built."""
        text = text.replace("/usr/bin/tooz-run", TOOZ_RUN)
        text = re.sub(r"/usr/local/bin/\w+", "/bin/true", text)
        with open(os.path.join(self.directory, name), "w", encoding="ascii") as f:
            f.write(text)

    def complaints(self):
        """About these units; what else is on this machine is not asked for."""
        paths = [os.path.join(self.directory, name) for name in self.names]
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *paths],
                              capture_output=True, text=True, check=False, timeout=120,
                              env={**os.environ, "SYSTEMD_UNIT_PATH": self.directory + ":"})
        said = [line for line in done.stderr.splitlines() if any(name in line for name in self.names)]
        return said, done

    def test_verified(self):
        self.assertEqual({os.path.splitext(name)[1] for name in self.names},
                         {".mount", ".automount", ".service", ".timer"})
        said, done = self.complaints()
        self.assertEqual(said, [])
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_would_be_found(self):
        """That the check finds what is wrong."""
        for name, wrong in (("nightly.service", "[Service]\nKilMode=mixed\n"),
                            ("mnt-tooz.mount", "[Mount]\nWhere=/elsewhere\n"),
                            ("nightly.timer", "[Timer]\nOnCalendar=sometimes\n")):
            with self.subTest(name):
                with open(os.path.join(self.directory, name), encoding="ascii") as f:
                    before = f.read()
                self.write(name, before + wrong)
                self.assertNotEqual(self.complaints()[0], [])
                self.write(name, before)

    def test_options_are_known(self):
        """tooz-run and mount.tooz take the options that the units give them."""
        with open(os.path.join(UNITS, "mnt-tooz.mount"), encoding="ascii") as f:
            text = f.read()
        options = re.search(r"^Options=(.*)$", text, re.M)[1]
        with tempfile.NamedTemporaryFile() as credentials:
            credentials.write(b"password=secret\n")
            credentials.flush()
            options = re.sub(r"(credentials=)[^,]*", r"\g<1>" + credentials.name, options)
            url = re.search(r"^What=(.*)$", text, re.M)[1]
            done = subprocess.run([os.environ["TOOZFS"], "-f", url, self.directory, "-o", options],
                                  capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("nightly.service", "active.service"):
            with open(os.path.join(UNITS, name), encoding="ascii") as f:
                line = re.search(r"^ExecStart=\S+ (.*?) -- ", f.read(), re.M)[1]
            options = set(re.findall(r"(--[a-z-]+)", line))
            known = subprocess.run([TOOZ_RUN, "--help"], capture_output=True, text=True, check=True)
            self.assertLessEqual(options, set(re.findall(r"--[a-z-]+", known.stdout)))


if __name__ == "__main__":
    if not shutil.which("systemd-analyze"):
        print("needs systemd-analyze, of the package systemd")
        sys.exit(77)
    unittest.main(verbosity=2)
