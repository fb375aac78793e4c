# SPDX-License-Identifier: Apache-2.0
"""The part of tests/run that comes after the packages: configure, build, test, sum up.

Every process that is started here is a descendant of this one, which makes itself their reaper: what
a test left behind is found and ended, and named as a failure.
"""
import argparse
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PR_SET_CHILD_SUBREAPER = 36
GOOD = {"OK", "EXPECTEDFAIL", "SKIP"}


def children():
    """Direct children of this process, dead ones too: (pid, command line)."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                parent = int(f.read().rsplit(")", 1)[1].split()[1])
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                command = f.read().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if parent == os.getpid():
            found.append((int(pid), command))
    return found


def reap():
    """Ends whatever is left; returns the command lines of what was alive."""
    left = []
    for _ in range(100):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return left
        alive = [(pid, command) for pid, command in children() if command]
        for pid, command in alive:
            if command not in left:
                left.append(command)
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return left


def run(command, env=None):
    print("+", " ".join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


class Variant:
    """One build directory and how its tests are run."""

    def __init__(self, name, build, options, slow, env):
        self.name, self.build, self.options, self.slow = name, build, options, slow
        self.env = dict(os.environ, TOOZFS_SLOW=str(slow), **env)

    def make(self):
        options = ["-Dwerror=true", *self.options]
        if os.path.exists(os.path.join(self.build, "meson-private", "coredata.dat")):
            code = run(["meson", "configure", self.build, *options])
        else:
            code = run(["meson", "setup", self.build, ROOT, *options])
        return code == 0 and run(["ninja", "-C", self.build]) == 0

    def test(self, suites, long_runs, jobs):
        command = ["meson", "test", "-C", self.build, "--no-rebuild", "--print-errorlogs"]
        for suite in suites:
            command += ["--suite", suite]
        factor = self.slow * (20 if long_runs else 1)
        command += ["--timeout-multiplier", str(factor), "--num-processes", str(jobs)]
        env = dict(self.env, TOOZFS_LONG="1") if long_runs else self.env
        log = os.path.join(self.build, "meson-logs", "testlog.json")
        if os.path.exists(log):
            os.unlink(log)
        code = run(command, env)
        return code, self.results(log)

    @staticmethod
    def results(log):
        try:
            with open(log, encoding="utf-8") as f:
                return [json.loads(line) for line in f if line.strip()]
        except OSError:
            return []


def skips(result):
    """Reasons of a test that was skipped, or of parts of it."""
    text = "\n".join(filter(None, [result.get("stdout"), result.get("stderr")]))
    parts = re.findall(r"^.*\bskipped\b[ :]+['\"]?(.+?)['\"]?$", text, re.M)
    if result["result"] == "SKIP":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return parts or lines[-1:] or ["no reason given"]
    return [part for part in parts if not re.match(r"^\d+ test", part)]


def sum_up(name, results, left, seconds):
    """Prints; returns whether all is well."""
    bad = [r for r in results if r["result"] not in GOOD]
    skipped = [(r["name"], reason) for r in results for reason in skips(r)]
    print(f"\n== {name}: {len(results)} tests, {len(bad)} failed, "
          f"{sum(r['result'] == 'SKIP' for r in results)} skipped, {seconds:.0f} s")
    for r in bad:
        print(f"   {r['result']}: {r['name']}")
    for test, reason in dict.fromkeys(skipped):
        print(f"   skipped in {test}: {reason}")
    for command in left:
        print(f"   left behind and ended: {command}")
    return not bad and not left


def arguments():
    parser = argparse.ArgumentParser(prog="tests/run")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--no-sanitize", action="store_true")
    parser.add_argument("--no-install", action="store_true")
    parser.add_argument("--suite", action="append", default=[])
    # Most tests wait for something, a lease or a server, most of the time.
    parser.add_argument("--jobs", type=int, default=2 * len(os.sched_getaffinity(0)))
    parser.add_argument("--build-dir", default=os.path.join(ROOT, "build-tests"))
    return parser.parse_args()


def variants(args):
    build = os.path.abspath(args.build_dir)
    yield Variant("plain", build, [], 1, {})
    if args.no_sanitize:
        return
    yield Variant("ASan and UBSan", build + "-sanitize",
                  ["-Db_sanitize=address,undefined", "-Db_lundef=false"], 4,
                  {"TOOZFS_SANITIZED": "1",
                   # A hostile length that a library asks for is refused, as without ASan.
                   "ASAN_OPTIONS": "abort_on_error=0:detect_stack_use_after_return=1:"
                                   "allocator_may_return_null=1",
                   "LSAN_OPTIONS": "print_suppressions=0:suppressions="
                                   + os.path.join(ROOT, "tests", "lib", "lsan.supp"),
                   "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"})


def main():
    args = arguments()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    good, summaries = True, []
    for variant in variants(args):
        start = time.monotonic()
        if not variant.make():
            print(f"\n== {variant.name}: does not build")
            return 1
        code, results = variant.test(args.suite, args.long, args.jobs)
        summaries.append((variant.name, results, reap(), time.monotonic() - start))
        good = good and code == 0
    for summary in summaries:
        good = sum_up(*summary) and good
    print("\neverything passed" if good else "\nFAILED")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        reap()
