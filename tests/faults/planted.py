# SPDX-License-Identifier: Apache-2.0
"""Would the tests find a bug? Each planted/*.patch is one of a known kind. It is applied to a copy of the tree, which is
built; then the simulator, seed by seed, and the unit tests of the core are asked. Each bug must be found.

    planted.py [--seeds N] [--build-dir DIR] [NAME ...]

Prints by what each was found, and after how many seeds. Takes minutes: it is part of no suite.
"""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
PATCHES = os.path.join(ROOT, "tests", "faults", "planted")
UNITS = ("session_test", "stop_test", "locks_test", "members_test", "answers_test")


def run(*argv, **keywords):
    return subprocess.run(argv, capture_output=True, text=True, check=False, **keywords)


def build(build_dir):
    targets = ["tests/sim/sim", *(f"tests/unit/{unit}" for unit in UNITS)]
    done = run("ninja", "-C", build_dir, *targets)
    if done.returncode:
        raise SystemExit(done.stdout[-3000:] + done.stderr)


def found(build_dir, seeds):
    """How the bug showed; None: it did not."""
    done = run(os.path.join(build_dir, "tests/sim/sim"), "--seed", "1", "--seeds", str(seeds), "--steps", "600",
               timeout=1800)
    if done.returncode:
        line = next((x for x in done.stderr.splitlines() if x.startswith("seed ")),
                    (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[0])
        seed = re.search(r"seed (\d+)", done.stderr)
        return f"the simulator, after {seed.group(1) if seed else '?'} seeds: {line}"
    for unit in UNITS:
        done = run(os.path.join(build_dir, "tests/unit", unit), timeout=300)
        if done.returncode:
            names = re.findall(r"^\[  FAILED  \] (\w+)$", done.stderr + done.stdout, re.M)
            return f"{unit}: {', '.join(dict.fromkeys(names)) or 'it crashed'}"
    return None


def main():
    parser = argparse.ArgumentParser(prog="planted.py")
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("--build-dir")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    patches = [os.path.join(PATCHES, f"{name}.patch") for name in args.names] or sorted(
        glob.glob(os.path.join(PATCHES, "*.patch")))
    missed = 0
    with tempfile.TemporaryDirectory(prefix="planted-") as work:
        tree, build_dir = os.path.join(work, "tree"), args.build_dir or os.path.join(work, "build")
        shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(".git", "build*"))
        done = run("meson", "setup", build_dir, tree)
        if done.returncode:
            raise SystemExit(done.stdout[-3000:])
        build(build_dir)
        if sound := found(build_dir, args.seeds):
            raise SystemExit(f"without a bug: {sound}")
        for patch in patches:
            name = os.path.basename(patch)[:-len(".patch")]
            done = run("patch", "-p1", "--no-backup-if-mismatch", "-d", tree, "-i", patch)
            if done.returncode:
                raise SystemExit(f"{name} does not apply: {done.stdout}")
            build(build_dir)
            how = found(build_dir, args.seeds)
            missed += how is None
            print(f"{name}: {how or 'NOT FOUND'}", flush=True)
            run("patch", "-p1", "-R", "--no-backup-if-mismatch", "-d", tree, "-i", patch)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
